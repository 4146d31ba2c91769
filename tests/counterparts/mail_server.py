"""A real mail server on loopback (aiosmtpd), for tests: TLS, AUTH, and the moods that mail servers have.

Prints one line of JSON when it listens: {"port": ..., "root": <path of its authority's certificate>}.
Keeps each message that it takes as <folder>/<number>.eml, with what was said about it in <folder>/<number>.json.
What it does with a message is said by the local part of the recipient's address, without what follows a plus:

  refused     550 at RCPT, with the address in the answer
  greylisted  451 at the first RCPT for the address, then taken
  closing     421 at RCPT, and the connection is closed
  stuck       no answer at RCPT
  cut         the connection is closed in the middle of the first content for the address, then taken
  lost        taken, and the connection is closed without an answer, the first time
  held        taken, and not answered until the connection is closed, the first time
  spam        554 after the content
"""

import argparse
import asyncio
import json
import logging
import os
import pathlib
import ssl
import sys
import warnings

import trustme
from aiosmtpd.smtp import SMTP, AuthResult

USER_NAME, PASSWORD = "accounts@example.com", "a password, of a mail server"


class Mailbox:
    """What the server has taken, and whom it has seen."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = set()
        # A server that was started anew goes on counting.
        self.number = len(list(folder.glob("*.eml")))

    def is_first(self, recipient):
        first = recipient not in self.seen
        self.seen.add(recipient)
        return first

    def keep(self, server, session, envelope):
        self.number += 1
        told = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "options": envelope.mail_options,
            "hello": session.host_name,
            "port": session.peer[1],
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "login": session.auth_data,
        }
        (self.folder / f"{self.number}.json").write_text(json.dumps(told))
        unnamed = self.folder / f"{self.number}.tmp"
        unnamed.write_bytes(envelope.content)
        # Whoever sees the file sees all of it, and what was said about it.
        os.rename(unnamed, self.folder / f"{self.number}.eml")


class Handler:
    def __init__(self, mailbox):
        self.mailbox = mailbox

    async def handle_RCPT(self, server, session, envelope, address, options):
        mood = mood_of(address)
        if mood == "refused":
            return f"550 5.1.1 <{address}>: no such mailbox here"
        if mood == "greylisted" and self.mailbox.is_first(address):
            return f"451 4.7.1 <{address}>: greylisted, come back later"
        if mood == "closing":
            await server.push("421 4.3.2 closing down")
            server.transport.close()
            return "421 4.3.2 closing down"
        if mood == "stuck":
            await asyncio.Event().wait()
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server, session, envelope):
        recipient = envelope.rcpt_tos[0]
        mood = mood_of(recipient)
        if mood == "spam":
            return "554 5.6.0 not wanted"
        self.mailbox.keep(server, session, envelope)
        if mood == "lost" and self.mailbox.is_first(recipient):
            server.transport.abort()
        if mood == "held" and self.mailbox.is_first(recipient):
            await asyncio.Event().wait()
        return "250 2.0.0 taken"


class Server(SMTP):
    """As aiosmtpd, but it may break off in the middle of the content, and mix in answers of somebody on the way."""

    injects = False

    async def smtp_DATA(self, arg):
        recipient = self.envelope.rcpt_tos[0] if self.envelope and self.envelope.rcpt_tos else ""
        if mood_of(recipient) == "cut" and self.event_handler.mailbox.is_first(recipient):
            await self.push("354 go on")
            await self._reader.readuntil(b"\r\n")
            self.transport.abort()
            return
        await super().smtp_DATA(arg)

    async def push(self, status):
        if self.injects and status.startswith("220 Ready to start TLS"):
            status += "\r\n250-mail.example.com\r\n250 AUTH PLAIN"
        await super().push(status)


def mood_of(address):
    return address.split("@")[0].split("+")[0].lower()


def authenticate(server, session, envelope, mechanism, data):
    """AUTH PLAIN and LOGIN: what aiosmtpd hands over of both is a pair of bytes."""
    right = (data.login.decode(), data.password.decode()) == (USER_NAME, PASSWORD)
    return AuthResult(success=right, handled=False, auth_data=data.login.decode() if right else None)


def certificates(folder):
    """An authority of this server's own, and a certificate for loopback; made once a folder."""
    root, chain = folder / "root.pem", folder / "server.pem"
    if not root.exists():
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(root))
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
    return root, chain


async def serve(options):
    folder = pathlib.Path(options.folder)
    root, chain = certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    handler = Handler(Mailbox(folder))
    starts, implicit = options.tls == "starttls", options.tls == "implicit"

    def factory():
        server = Server(
            handler,
            hostname="mail.example.com",
            tls_context=context if starts else None,
            require_starttls=starts,
            # With implicit TLS the connection is protected, and aiosmtpd does not know.
            auth_require_tls=starts,
            auth_required=options.auth,
            authenticator=authenticate if options.auth else None,
            auth_exclude_mechanism=[] if options.auth != "login" else ["PLAIN"],
        )
        server.injects = options.injects
        return server

    loop = asyncio.get_running_loop()
    listening = await loop.create_server(factory, "127.0.0.1", options.port, ssl=context if implicit else None)
    print(json.dumps({"port": listening.sockets[0].getsockname()[1], "root": str(root)}), flush=True)
    # Whoever started it holds the other end of its input: when that is gone, so is the server.
    await loop.run_in_executor(None, sys.stdin.read)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where messages and certificates go; it must be there")
    parser.add_argument("--port", type=int, default=0, help="0 for any")
    parser.add_argument("--tls", choices=["none", "starttls", "implicit"], default="none")
    parser.add_argument("--auth", choices=["plain", "login"], help="require it, by these mechanisms")
    parser.add_argument("--injects", action="store_true", help="answer for itself what TLS should have asked first")
    # It warns of what is meant here, and of what it does itself.
    warnings.simplefilter("ignore")
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    asyncio.run(serve(parser.parse_args()))


main()
