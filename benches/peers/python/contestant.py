"""One process of Django as a contestant: it does what lines of JSON ask (../rust/protocol.rs), with some threads.

contestant.py FOLDER INDEX PROCESSES THREADS; the first process makes the tables, and users are shared out among all.
"""

import itertools
import json
import random
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import accounts

WRONG = "ten lanterns over a noisy harbour"


def processor_time():
    """Seconds of processors that this process took so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory(path, field):
    """Bytes of memory, as the kernel tells in a file; pages shared by several processes count in part."""
    with open(path, encoding="ascii") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


class Contestant:
    """What the process knows between two lines."""

    def __init__(self, index, processes, threads):
        self.index, self.processes, self.threads = index, processes, threads
        # Kept, and with them the connection that Django has for each.
        self.pool = ThreadPoolExecutor(threads)
        self.users = 0
        self.further = 0

    def perform(self, ask):
        """Does one thing and answers what came of it."""
        begun, used = time.monotonic(), processor_time()
        end = begun + ask.get("seconds", 0)

        def goes_on(_):
            return time.monotonic() < end

        match ask["ask"]:
            case "seed":
                self.users = ask["users"]
                self.further = self.index + self.users
                mine = range(self.index, self.users, self.processes)
                self.closed_loop(lambda number: number < len(mine), lambda number: self.register(mine[number]))
                return {"seeded": "$".join(accounts.stored_hash(self.index).split("$")[:4])}
            case "hash":
                times = self.closed_loop(goes_on, lambda _: accounts.hash_password())
            case "register":
                first = self.further
                times = self.closed_loop(goes_on, lambda number: self.register(first + number * self.processes))
                self.further += len(times) * self.processes
            case "login":
                draws = random.Random(ask["draw"] * self.processes + self.index)
                times = self.closed_loop(goes_on, lambda _: self.login(draws, ask["wrong"]))
            case other:
                raise ValueError(f"nobody does {other}")
        good = sorted(seconds for seconds, denied in times if not denied)
        return {
            "tally": {
                "good": len(good),
                "denied": len(times) - len(good),
                "overloaded": 0,
                "in_time": sum(seconds <= 2 for seconds in good),
                "seconds": time.monotonic() - begun,
                "processor": processor_time() - used,
                "high": good[round((len(good) - 1) * 0.99)],
                "resident": memory("/proc/self/smaps_rollup", "Pss:"),
                "peak": memory("/proc/self/status", "VmHWM:"),
            }
        }

    def register(self, number):
        """Registers one user."""
        accounts.register(number)

    def login(self, draws, wrong):
        """Signs a user in, drawn at random; answers whether that was denied, as a wrong password is to be."""
        number, is_wrong = draws.randrange(self.users), wrong and draws.randrange(10) == 0
        good = accounts.login(number, WRONG if is_wrong else accounts.PASSWORD)
        if good == is_wrong:
            raise RuntimeError(f"a login of user {number}, the password wrong: {is_wrong}, came to {good}")
        return is_wrong

    def closed_loop(self, goes_on, request):
        """Has every thread make one request after the other; answers how long each took and what came of it."""
        numbers, times = itertools.count(), []

        def call():
            while goes_on(number := next(numbers)):
                begun = time.monotonic()
                denied = bool(request(number))
                times.append((time.monotonic() - begun, denied))

        callers = [self.pool.submit(call) for _ in range(self.threads)]
        for caller in callers:
            caller.result()
        return times


def main():
    """Answers lines until there are no more."""
    folder, (index, processes, threads) = sys.argv[1], map(int, sys.argv[2:])
    accounts.open_accounts(folder, index == 0)
    contestant = Contestant(index, processes, threads)
    print(json.dumps({"ready": accounts.versions()}), flush=True)
    for line in sys.stdin:
        try:
            reply = contestant.perform(json.loads(line))
        except Exception as failure:
            reply = {"failure": repr(failure)}
        print(json.dumps(reply), flush=True)


main()
