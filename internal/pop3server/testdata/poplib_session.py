"""A session of Python's poplib: arguments are host, port, plain or tls, login, the CA's file. The password comes on stdin.

It prints what the server sent as one JSON object.
"""
import json
import poplib
import ssl
import sys

host, port, mode, login, ca = sys.argv[1:6]
password = sys.stdin.read()
context = ssl.create_default_context(cafile=ca)
if mode == "tls":
    box = poplib.POP3_SSL(host, int(port), context=context, timeout=20)
else:
    box = poplib.POP3(host, int(port), timeout=20)
    box.stls(context=context)
capabilities = box.capa()
box.utf8()
box.user(login)
box.pass_(password)
count, octets = box.stat()
sizes = [int(line.split()[1]) for line in box.list()[1]]
uidls = [line.split()[1].decode() for line in box.uidl()[1]]
messages = []
for number in range(1, count + 1):
    _, lines, _ = box.retr(number)
    messages.append("".join(line.decode("latin-1") + "\r\n" for line in lines))
_, top, _ = box.top(1, 1)
box.dele(1)
box.rset()
box.dele(2)
box.noop()
box.quit()
print(json.dumps({
    "capabilities": capabilities, "count": count, "octets": octets, "sizes": sizes, "uidls": uidls,
    "messages": messages, "top": [line.decode("latin-1") for line in top],
}))
