"""Mass quotes in the reference model: pairs of orders that one command moves together, and what has them pulled. Written
from the rules (PROTOCOL.md, "Mass quotes").

A quote is what its session says that it shall be. Here it is the number of the order that stood last for each side of it;
whether that one stands still is looked up among the account's open orders.
"""

from rejects import NotCovered, Refused

ENTRIES_MAX, NUMBERS_MAX, QUOTES_MAX = 64, 63, 4_096
SIDES = ("bid", "buy"), ("ask", "sell")


def new_quotes(account):
    """What a session of this account begins with."""
    return {"account": account, "orders": {}, "protection": None, "pulled": False, "began": 0, "fills": 0, "filled": 0}


class Quotes:
    """The part of the market that knows which orders stand for which quotes."""

    def _mass_quote(self, command):
        if self.accounts[self.account]["mode"] == "easy":
            raise Refused("auto_mode")
        entries, own = command["entries"], self.sessions[self.session]["quotes"]
        names = [(entry["instrument"], entry["quote"]) for entry in entries]
        if not 1 <= len(entries) <= ENTRIES_MAX or names != sorted(set(names)):
            raise Refused("out_of_range")
        if not all(1 <= number <= NUMBERS_MAX for _, number in names):
            raise Refused("out_of_range")
        if own["pulled"]:
            raise Refused("quotes_pulled")
        if len({place[:2] for place in own["orders"]} | set(names)) > QUOTES_MAX:
            raise NotCovered("more quotes than a session may have")
        # What is withdrawn or retreats makes room for what comes nearer: all of that first, then bids, then asks.
        first, bids, asks = [], [], []
        for entry in entries:
            for name, side in SIDES:
                stands = self._standing(own, (entry["instrument"], entry["quote"], side))
                price, qty = entry[name]["price"], entry[name]["qty"]
                retreats = stands is not None and (price <= stands["price"] if side == "buy" else price >= stands["price"])
                turn = first if retreats or not qty else bids if side == "buy" else asks
                turn.append((entry, side, price, qty))
        refused = 0
        for entry, side, price, qty in first + bids + asks:
            try:
                self._quote_side(own, entry, side, price, qty, command)
            except Refused as no:
                refused += 1
                self._take_out(own, (entry["instrument"], entry["quote"], side))
                self._report(self.session, 0, self.account,
                             {"kind": "quote_refused", "instrument": entry["instrument"], "quote": entry["quote"],
                              "side": side, "code": no.code})
        self._answer({"kind": "mass_quote", "accepted": 2 * len(entries) - refused, "refused": refused})

    def _quote_side(self, own, entry, side, price, qty, command):
        place = (entry["instrument"], entry["quote"], side)
        if not qty:
            return self._take_out(own, place)
        if entry["bid"]["qty"] and entry["ask"]["qty"] and entry["bid"]["price"] >= entry["ask"]["price"]:
            raise Refused("price")
        stands = self._standing(own, place)
        if stands is None:
            order = {"instrument": place[0], "side": side, "kind": "limit", "price": price, "qty": qty, "label": 0, "tag": "",
                     "tif": "post_only" if command["post_only"] else "gtc", "stp": command["stp"], "to_consumption": False}
            own["orders"][place] = self._open(order, quote=entry["quote"])
        elif (stands["price"], stands["remaining"]) != (price, qty):
            self._change(stands, qty, price, command["stp"], command["post_only"])
        return None

    def _standing(self, own, place):
        """The order that is open for one side of a quote."""
        return self.accounts[own["account"]]["orders"].get(own["orders"].get(place))

    def _take_out(self, own, place):
        stands = self._standing(own, place)
        own["orders"].pop(place, None)
        if stands is not None:
            self._end(stands)

    def _set_quote_protection(self, command):
        wanted = command["protection"]
        if wanted is not None and not (wanted["window"] and (wanted["fills"] or wanted["qty"])):
            raise Refused("out_of_range")
        own = self.sessions[self.session]["quotes"]
        own |= {"protection": wanted, "pulled": False, "fills": 0, "filled": 0}
        self._done()

    # -- protection ---------------------------------------------------------------------------------------------

    def _count_quote_fill(self, order, qty):
        """A quote that rested was filled: one fill too many, and its session's are pulled once the command is done."""
        own = self.sessions[order["session"]]["quotes"]
        wanted = own["protection"]
        if wanted is None or own["pulled"]:
            return
        if not own["fills"] or self.at - own["began"] >= wanted["window"]:
            own |= {"began": self.at, "fills": 0, "filled": 0}
        own["fills"] += 1
        own["filled"] += qty
        if 0 < wanted["fills"] <= own["fills"] or 0 < wanted["qty"] <= own["filled"]:
            own["pulled"] = True
            self.overrun.append(order["session"])

    def _pull_quotes(self):
        for session in self.overrun:
            own, account = self.sessions[session]["quotes"], self.sessions[session]["account"]
            standing = [order for place in sorted(own["orders"]) if (order := self._standing(own, place)) is not None]
            own["orders"].clear()
            self._report(session, 0, account, {"kind": "quotes_pulled", "count": len(standing)})
            for order in standing:
                self._close(order, "cancelled")
        self.overrun.clear()
