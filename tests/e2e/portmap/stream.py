# stream.py ADDRESS PORT: sends streams of many sizes to an echo at once, pieces of many sizes in each, and reads slowly.
# Prints which have come back as they went. ADDRESS may be a path.
import hashlib, random, socket, sys, threading

address, port = sys.argv[1], int((sys.argv + ["0"])[2])
sizes = [0, 1, 100, 16383, 16384, 16385, 300000, 8 << 20]

def connect():
    s = socket.socket(socket.AF_UNIX if "/" in address else socket.AF_INET)
    s.connect(address if "/" in address else (address, port))
    return s

def send(s, data, pieces):
    start = 0
    while start < len(data):
        end = start + pieces.choice([1, 1000, 16384, 16385, 262144, 1 << 20])
        s.sendall(data[start:end])
        start = end
    s.shutdown(socket.SHUT_WR)

def there_and_back(size, results):
    pieces = random.Random(size)
    data = pieces.randbytes(size)
    s = connect()
    sender = threading.Thread(target=send, args=(s, data, pieces))
    sender.start()
    digest = hashlib.sha256()
    while got := s.recv(999 if size < 1 << 20 else 70001):
        digest.update(got)
    sender.join()
    results[size] = digest.digest() == hashlib.sha256(data).digest()

def urgent():
    # What is urgent may be lost or stand in its place; what is around it is there.
    s = connect()
    s.sendall(b"before")
    s.send(b"!", socket.MSG_OOB)
    s.sendall(b"after")
    s.shutdown(socket.SHUT_WR)
    got = b""
    while more := s.recv(100):
        got += more
    return got.replace(b"!", b"") == b"beforeafter"

results = {}
threads = [threading.Thread(target=there_and_back, args=(size, results)) for size in sizes]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*[size for size in sizes if results.get(size)], "/" in address or urgent())
