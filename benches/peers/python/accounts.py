"""Accounts as a Django project has them: its users, its hasher, its sessions in the database, called without HTTP."""

import os
import sqlite3
import sys
from importlib.metadata import version

import django
from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher

PASSWORD = "nine lanterns over a quiet harbour"


class Argon2(Argon2PasswordHasher):
    """Argon2id with the costs that all contestants have."""

    time_cost = 2
    memory_cost = 19_456
    parallelism = 1


def open_accounts(folder, first):
    """Sets Django up over a durable file in a folder; the first process to do so makes the tables."""
    validation = "django.contrib.auth.password_validation."
    rules = ["UserAttributeSimilarity", "MinimumLength", "CommonPassword", "NumericPassword"]
    settings.configure(
        SECRET_KEY="of a benchmark",
        USE_TZ=True,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.path.join(folder, "accounts.sqlite"),
                "OPTIONS": {
                    "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
                    "transaction_mode": "IMMEDIATE",
                    "timeout": 20,
                },
            }
        },
        PASSWORD_HASHERS=["accounts.Argon2"],
        # As a new project has them.
        AUTH_PASSWORD_VALIDATORS=[{"NAME": f"{validation}{rule}Validator"} for rule in rules],
        SESSION_ENGINE="django.contrib.sessions.backends.db",
    )
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    if first:
        call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        journal = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        synchronous = cursor.execute("PRAGMA synchronous").fetchone()[0]
    if (journal, synchronous) != ("wal", 2):
        raise RuntimeError("SQLite would not be durable")


def versions():
    """What is being compared."""
    python = ".".join(map(str, sys.version_info[:3]))
    hasher = f"argon2-cffi {version('argon2-cffi')}"
    return f"Django {django.__version__}, Python {python}, {hasher}, SQLite {sqlite3.sqlite_version}"


def register(number):
    """Registers a user of that number, by the rules for passwords that a new project has."""
    from django.contrib.auth import get_user_model
    from django.contrib.auth.password_validation import validate_password

    users = get_user_model()
    name = f"user{number}"
    validate_password(PASSWORD, users(username=name))
    users.objects.create_user(name, password=PASSWORD)


def login(number, password):
    """Signs a user in and stores the session; answers whether the password was right.

    What the sign-in writes is one transaction here. In a project the middleware would store the session in a further one.
    """
    from django.contrib.auth import authenticate
    from django.contrib.auth import login as sign_in
    from django.contrib.sessions.backends.db import SessionStore
    from django.db import transaction
    from django.http import HttpRequest

    request = HttpRequest()
    request.session = SessionStore()
    user = authenticate(request, username=f"user{number}", password=password)
    if user is None:
        return False
    with transaction.atomic():
        sign_in(request, user)
        request.session.save()
    return True


def hash_password():
    """Hashes a password and stores nothing."""
    from django.contrib.auth.hashers import make_password

    make_password(PASSWORD)


def stored_hash(number):
    """The hash of a user's password, without Django's own prefix."""
    from django.contrib.auth import get_user_model

    return get_user_model().objects.get(username=f"user{number}").password.removeprefix("argon2")
