# server.py PROTOCOL:PORT…: tells every client its address as the server sees it; `count` counts bytes up to end of file;
# `echo` sends all back, `unix-echo:PATH` too.
import socket, sys, threading

def name(address):
    return address[0].removeprefix("::ffff:")

def tcp(listener):
    while True:
        client, address = listener.accept()
        client.sendall(name(address).encode())
        client.close()

def count(listener):
    while True:
        client, _ = listener.accept()
        total = 0
        while data := client.recv(65536):
            total += len(data)
        client.sendall(str(total).encode())
        client.close()

def echo(listener):
    def back(client):
        while data := client.recv(65536):
            client.sendall(data)
        client.close()
    while True:
        client, _ = listener.accept()
        threading.Thread(target=back, args=(client,)).start()

def udp(listener):
    while True:
        _, address = listener.recvfrom(2048)
        listener.sendto(name(address).encode(), address)

def unix(listener):
    while True:
        client, _ = listener.accept()
        client.sendall(b"unix")
        client.close()

for word in sys.argv[1:]:
    protocol, port = word.split(":")
    if protocol in ("unix", "unix-echo"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(port)
        listener.listen(64)
        threading.Thread(target=unix if protocol == "unix" else echo, args=(listener,)).start()
        continue
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    listener = socket.socket(socket.AF_INET6, kind)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", int(port)))
    if kind == socket.SOCK_STREAM:
        listener.listen(64)
    threading.Thread(target=globals()[protocol], args=(listener,)).start()
print("ready", flush=True)
