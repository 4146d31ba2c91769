"""A mail server of another make (Twisted) on loopback, without 8BITMIME: TLS and a login are required.

    other_mail_server.py <folder> starttls|implicit

Prints one line of JSON when it listens: {"port": ..., "root": <path of its authority's certificate>}.
Keeps each message that it takes as <folder>/<number>.eml, with what was said about it in <folder>/<number>.json.
"""

import json
import os
import pathlib
import sys

import trustme
from twisted.cred import checkers, portal
from twisted.internet import defer, protocol, reactor, ssl, stdio
from twisted.internet.interfaces import ISSLTransport
from twisted.mail import imap4, smtp
from zope.interface import implementer

USER_NAME, PASSWORD = b"accounts@example.com", b"a password, of a mail server"


@implementer(smtp.IMessage)
class Message:
    def __init__(self, folder, told):
        self.folder, self.told, self.lines = folder, told, []

    def lineReceived(self, line):
        self.lines.append(line)

    def eomReceived(self):
        number = len(list(self.folder.glob("*.eml"))) + 1
        (self.folder / f"{number}.json").write_text(json.dumps(self.told))
        unnamed = self.folder / f"{number}.tmp"
        unnamed.write_bytes(b"".join(line + b"\r\n" for line in self.lines))
        os.rename(unnamed, self.folder / f"{number}.eml")
        return defer.succeed(None)

    def connectionLost(self):
        self.lines.clear()


@implementer(smtp.IMessageDelivery)
class Delivery:
    def __init__(self, folder):
        self.folder, self.told = folder, {"login": USER_NAME.decode(), "options": []}

    def receivedHeader(self, helo, origin, recipients):
        return b"Received: from " + helo[0] + b" by mail.example.net with ESMTPSA"

    def validateFrom(self, helo, origin):
        self.told.update({"from": str(origin), "hello": helo[0].decode()})
        return origin

    def validateTo(self, user):
        self.told.update(
            {
                "to": [str(user.dest)],
                "port": user.protocol.transport.getPeer().port,
                "tls": ISSLTransport.providedBy(user.protocol.transport),
            }
        )
        if str(user.dest).startswith("refused@"):
            raise smtp.SMTPBadRcpt(user)
        return lambda: Message(self.folder, dict(self.told))


@implementer(portal.IRealm)
class Realm:
    def __init__(self, folder):
        self.folder = folder

    def requestAvatar(self, avatar, mind, *interfaces):
        # Whoever has not logged in sends nothing.
        return smtp.IMessageDelivery, Delivery(self.folder), lambda: None


class EndOfInput(protocol.Protocol):
    def connectionLost(self, reason):
        if reactor.running:
            reactor.stop()


def main():
    folder, tls = pathlib.Path(sys.argv[1]), sys.argv[2]
    authority = trustme.CA()
    root, chain = folder / "root.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(str(root))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(chain))
    context = ssl.DefaultOpenSSLContextFactory(str(chain), str(chain))

    users = checkers.InMemoryUsernamePasswordDatabaseDontUse()
    users.addUser(USER_NAME, PASSWORD)
    factory = smtp.SMTPFactory(portal.Portal(Realm(folder), [users]))

    def build(address):
        server = smtp.ESMTP({b"PLAIN": imap4.PLAINCredentials, b"LOGIN": imap4.LOGINCredentials}, context)
        server.portal, server.factory, server.host = factory.portal, factory, b"mail.example.net"
        return server

    factory.buildProtocol = build
    if tls == "implicit":
        listening = reactor.listenSSL(0, factory, context, interface="127.0.0.1")
    else:
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    print(json.dumps({"port": listening.getHost().port, "root": str(root)}), flush=True)
    stdio.StandardIO(EndOfInput())
    reactor.run()


main()
