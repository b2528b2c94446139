# client.py ADDRESS PORT [udp|half|wait], client.py PATH: prints what the server says, or why it says nothing.
import socket, sys

address, port = sys.argv[1], int((sys.argv + ["0"])[2])
how = sys.argv[3] if len(sys.argv) > 3 else "tcp"
family = socket.AF_UNIX if "/" in address else socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if how == "udp" else socket.SOCK_STREAM)
# Long enough for a first packet that waits for its neighbour's address to be sent again.
s.settimeout(None if how == "wait" else 6)
try:
    s.connect(address if "/" in address else socket.getaddrinfo(address, port)[0][4])
    if how == "udp":
        s.send(b"?")
    if how == "half":
        for _ in range(64):
            s.sendall(bytes(1 << 16))
        s.shutdown(socket.SHUT_WR)
    print(s.recv(100).decode() or "nothing")
except ConnectionRefusedError:
    print("refused")
except TimeoutError:
    print("silence")
except OSError as error:
    print(type(error).__name__)
