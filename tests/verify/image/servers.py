"""What the image talks to while it is tried: python3 servers.py MAIL-PORT NAME-SERVER

A mail server that greets, and, for root, a name server at that address which knows no
name at all.
"""
import contextlib
import socket
import socketserver
import sys
import threading


class Greets(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 mail.latchkey.invalid ESMTP\r\n")
        for line in self.rfile:
            self.wfile.write(b"221 bye\r\n" if line[:4].upper() == b"QUIT" else b"250 fine\r\n")


def know_no_name(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, contextlib.suppress(PermissionError):
        server.bind((address, 53))
        while True:
            question, asker = server.recvfrom(512)
            # The same id and question; flags: an answer, NXDOMAIN; one question, nothing else.
            server.sendto(question[:2] + b"\x81\x83\x00\x01" + bytes(6) + question[12:], asker)


threading.Thread(target=know_no_name, args=(sys.argv[2],), daemon=True).start()
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Greets).serve_forever()
