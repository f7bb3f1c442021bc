"""The reference model: what the venue must answer to a log, in the plainest code that can say it.

Orders lie in one list per instrument in the order of their arrival and are searched from end to end; balances are integers
in dicts. It is written from the rules (README, PROTOCOL.md, the doc comments of the engine), not from the engine's code paths,
and covers what the load of the cluster tests sends. What it does not cover it refuses with `NotCovered`, so that
no answer is ever waved through.
"""

import hashlib

from quotes import Quotes, new_quotes
from rejects import NotCovered, REJECT, Refused
from service import NO_TERMS, Service

TAGS_KEPT = 16_384
#: An order's id is its number, counted over the venue, and in the low 24 bits the slot where it rests.
SLOT_BITS = 24
NO_SLOT = (1 << SLOT_BITS) - 1
#: What is left of these can rest.
RESTING = ("gtc", "day", "post_only")
OPERATORS_ONLY = {"open_account", "deposit", "withdraw", "define", "set_status", "register_supplier", "set_capacity",
                  "set_account_terms", "set_sla_terms", "set_collateral", "set_benchmark"}
TIERS_ONLY = {"reserve", "settle", "release", "report_fault", "report_probe"}
#: What stands for a quote is its session's, so nobody quotes for another account.
MAKERS_OWN = {"mass_quote", "set_quote_protection"}
#: Delivery changes neither books nor what may be traded, as long as nothing is bought by itself: only its answers
#: are not foretold.
DELIVERY = {"reserve", "settle", "release"}


def crosses(side, limit, price):
    return limit >= price if side == "buy" else limit <= price


def fingerprint(public_key):
    """Sessions name a key by its SHA-256."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()


def bps(value, hundredths):
    return value * hundredths // 10_000


class Market(Service, Quotes):
    """State and rules; `apply` gives what each command makes the venue say to its sessions."""

    def __init__(self):
        self.accounts, self.instruments, self.sessions, self.keys = [], [], {}, {}
        # Suppliers by account, and whether the operator has suspended them.
        self.suppliers, self.hashes = {}, set()
        # Service and standing by supplier and instrument, in the order in which they began; who owes whom.
        self.services, self.collateral, self.debts = {}, {}, {}
        # What suppliers offer, what is attested of it and when that ends, and who is off which roster for it.
        self.offers, self.attested, self.attestation_ends, self.unfit = {}, {}, set(), set()
        self.public_keys = {}
        # Whether what was issued may have become less: lots were opened that expire, or calls were settled.
        self.opened, self.settled = False, False
        self.trades = 0
        self.orders = 0
        # Slots that rested once, the one to be taken next last, and how many there are in all.
        self.free_slots, self.slots = [], 0
        self.transfers = 0
        self.issuances = 0
        self.said = []
        self.twice = []
        # Sessions whose quotes were filled too much by the command in progress.
        self.overrun = []

    # -- the log ------------------------------------------------------------------------------------------------

    def apply(self, seq, at, entry):
        """The reports that this command causes: (session, report) in order."""
        self.seq, self.at, self.said = seq, at, []
        self.session, self.client_seq, self.account = entry["session"], entry["client_seq"], entry["account"]
        self._due()
        command = entry["command"]
        if self.session == 0:
            self._rule("_venue_" + command["do"])(command)
            return self.said
        session = self.sessions.get(self.session)
        if session is None:
            return self.said
        if self.client_seq <= session["last"]:
            self.twice.append((self.session, self.client_seq, seq))
            return self.said
        session["last"] = self.client_seq
        try:
            self._permit(session, command["do"])
            if command["do"] in DELIVERY:
                self._delivery(command)
            else:
                self._rule("_" + command["do"])(command)
        except Refused as no:
            self._answer({"kind": "reject", "code": no.code, "label": no.label, "existing": no.order})
        self._pull_quotes()
        return self.said

    def _rule(self, name):
        rule = getattr(self, name, None)
        if rule is None:
            raise NotCovered(name.strip("_"))
        return rule

    def _permit(self, session, do):
        caller = self.accounts[session["account"]]
        if do in OPERATORS_ONLY:
            allowed = caller["operator"]
        elif do in TIERS_ONLY:
            allowed = caller["tier"] or caller["operator"]
        elif do in MAKERS_OWN:
            allowed = session["account"] == self.account
        else:
            allowed = session["account"] == self.account or caller["tier"] or caller["operator"]
        if do == "attest":
            allowed = allowed and self.account < len(self.accounts) and self.accounts[self.account]["benchmark"]
        if not allowed:
            raise Refused("not_permitted")
        if not 0 < self.account < len(self.accounts):
            raise Refused("unknown_account")

    # -- reports ------------------------------------------------------------------------------------------------

    def _report(self, session, client_seq, account, body):
        state = self.sessions.get(session)
        if state is None:
            return
        state["reports"] += 1
        self.said.append((session, {"session_seq": state["reports"], "log_seq": self.seq, "match_time": self.at,
                                    "client_seq": client_seq, "account": account} | body))

    def _answer(self, body):
        self._report(self.session, self.client_seq, self.account, body)

    def _done(self, made=0):
        self._answer({"kind": "done", "id": made})

    @staticmethod
    def _order_body(order, exec_type, **more):
        status = "new" if not order["filled"] else "partly_filled" if order["remaining"] else "filled"
        body = {"kind": "execution", "exec": exec_type, "status": status, "closure": "none", "order": order["id"],
                "label": order["label"], "instrument": order["instrument"], "side": order["side"],
                "price": order["price"], "leaves": order["remaining"], "cum": order["filled"], "trade": 0,
                "last_price": 0, "last_qty": 0, "aggressor": False, "quote": order["quote"]}
        return body | more

    # -- the venue's own session --------------------------------------------------------------------------------

    def _venue_genesis(self, command):
        if self.accounts:
            return
        self._insert_account("advanced", tier=False, operator=False)
        operator = self._insert_account("advanced", tier=True, operator=True)
        self.keys[fingerprint(command["key"])] = operator
        self.public_keys[fingerprint(command["key"])] = command["key"]

    def _venue_open_session(self, command):
        account = self.keys.get(command["key"])
        if account is not None and command["session"] and command["session"] not in self.sessions:
            self.sessions[command["session"]] = {"account": account, "last": 0, "reports": 0, "connection": None,
                                                 "grace": None, "due": None, "quotes": new_quotes(account)}

    def _venue_establish(self, command):
        session = self.sessions.get(command["session"])
        if session is None or session["account"] != self.keys.get(command["key"]):
            return
        session |= {"connection": command["connection"], "grace": command["grace"], "due": None}

    def _venue_session_lost(self, command):
        session = self.sessions.get(command["session"])
        if session is None or session["connection"] != command["connection"]:
            return
        session["connection"] = None
        if session["grace"] is not None:
            session["due"] = self.at + session["grace"]
            self._due()

    def _venue_tick(self, command):
        pass

    def _due(self):
        """What fell due, the earliest first: sessions whose grace is over lose their orders, windows of service
        are judged, and attestations end."""
        while True:
            graces = ((s["due"], 0, id_) for id_, s in self.sessions.items() if s["due"] is not None)
            windows = ((one["ends"], 1, nth) for nth, one in enumerate(self.instruments) if one["ends"] is not None)
            attested = ((at, 2, (supplier, of)) for at, supplier, of in self.attestation_ends)
            at, what, which = min([*graces, *windows, *attested], default=(None, None, None))
            if at is None or at > self.at:
                return
            if what == 2:
                self.attestation_ends.remove((at, *which))
                self._review_quality(*which)
                continue
            if what == 1:
                self._close_window(which)
                continue
            session = self.sessions[which]
            session["due"] = None
            self._cancel_all(lambda order: order["session"] == which, session["account"])

    # -- directory ----------------------------------------------------------------------------------------------

    def _insert_account(self, mode, tier, operator):
        self.accounts.append({"mode": mode, "tier": tier, "operator": operator, "usd": 0, "usd_held": 0, "benchmark": False,
                              "holdings": {}, "orders": {}, "labels": {}, "tags": {}})
        return len(self.accounts) - 1

    def _open_account(self, command):
        if command["mode"] == "easy":
            raise NotCovered("an account that buys by itself")
        self._done(self._insert_account(command["mode"], command["tier"], command["operator"]))

    def _set_mode(self, command):
        raise NotCovered("a change of mode")

    def _set_auto_buy(self, command):
        raise NotCovered("an account that buys by itself")

    def _add_signing_key(self, command):
        key = fingerprint(command["key"])
        if key in self.keys:
            raise Refused("duplicate_key")
        self.keys[key] = self.account
        self.public_keys[key] = command["key"]
        self._done()

    def _add_consumption_key(self, command):
        if command["hash"] in self.hashes:
            raise Refused("duplicate_key")
        self.hashes.add(command["hash"])
        self._done()

    def _deposit(self, command):
        if command["amount"] <= 0:
            raise Refused("out_of_range")
        self._done()
        self._pay(self.account, command["amount"])

    def _set_account_terms(self, command):
        """They limit calls, whose answers are not foretold, and give credits, which the load never asks for."""
        self._done()

    def _withdraw(self, command):
        if command["amount"] <= 0:
            raise Refused("out_of_range")
        owed = sum(due for (owes, _), due in self.debts.items() if owes == self.account)
        if command["amount"] + owed > self.accounts[self.account]["usd"]:
            raise Refused("funds")
        self._pay(self.account, 0)
        self.accounts[self.account]["usd"] -= command["amount"]
        self._done()

    def _define(self, command):
        if command["movement"] != "at_fill":
            raise NotCovered("an instrument that is swept")
        for number, known in enumerate(self.instruments):
            if known["symbol"] == command["symbol"]:
                kept = {name: known[name] for name in ("book", "sla", "ends")}
                self.instruments[number] = command | kept
                self._review_quality_of(number)
                return self._done(number)
        self.instruments.append(command | {"book": [], "sla": NO_TERMS, "ends": None})
        return self._done(len(self.instruments) - 1)

    def _set_status(self, command):
        self._instrument(command["instrument"])["status"] = command["status"]
        self._done(command["instrument"])

    def _register_supplier(self, command):
        if any(instrument >= len(self.instruments) for instrument, _ in command["offers"]):
            raise Refused("unknown_instrument")
        self.suppliers[self.account], self.offers[self.account] = command["suspended"], command["offers"]
        self._review_offers(self.account)
        self._close_asks(self.account)
        self._done()

    def _instrument(self, number):
        if number >= len(self.instruments):
            raise Refused("unknown_instrument")
        return self.instruments[number]

    def _holding(self, account, instrument):
        holdings = self.accounts[account]["holdings"]
        return holdings.setdefault(instrument, {"free": 0, "held": 0, "issuance": 0, "capacity": 0, "parts": []})

    def _set_capacity(self, command):
        self._instrument(command["instrument"])
        if self.account not in self.suppliers:
            raise Refused("not_a_supplier")
        self._holding(self.account, command["instrument"])["capacity"] = command["qty"]
        self._done()

    def _issue(self, command):
        self._instrument(command["instrument"])
        if not command["qty"]:
            raise Refused("quantity")
        if self.account not in self.suppliers:
            raise Refused("not_a_supplier")
        holding = self._holding(self.account, command["instrument"])
        issued, qty = holding.setdefault("issued", 0), command["qty"]
        per_unit = self.instruments[command["instrument"]]["sla"]["collateral_per_unit"]
        within = min(holding["capacity"],
                     self.collateral.get((self.account, command["instrument"]), 0) // per_unit if per_unit else issued + qty)
        # What was delivered or has expired is owed no longer, and how much that is is not foretold.
        less = self.settled or (self.opened and self.instruments[command["instrument"]]["window"] is not None)
        if less and qty <= within < issued + qty:
            raise NotCovered("issuance near the limit of what may be owed")
        if issued + qty > within:
            raise Refused("beyond_capacity" if issued + qty > holding["capacity"] else "beyond_collateral")
        if self._suspended(self.account, command["instrument"]):
            raise Refused("suspended")
        holding["issued"] = issued + qty
        holding["issuance"] += command["qty"]
        self.issuances += 1
        self._done(self.issuances)

    def _transfer_issuance(self, command):
        self._instrument(command["instrument"])
        if not command["qty"]:
            raise Refused("quantity")
        holding = self._holding(self.account, command["instrument"])
        if command["qty"] > holding["issuance"]:
            raise Refused("units")
        holding["issuance"] -= command["qty"]
        holding["free"] += command["qty"]
        # [issuer, quantity, never sold yet]
        holding["parts"].append([self.account, command["qty"], True])
        self.transfers += 1
        self._done(self.transfers)

    def _transfer(self, command):
        self._instrument(command["instrument"])
        if not command["qty"]:
            raise Refused("quantity")
        if command["to"] != "consumption":
            raise NotCovered("a transfer back to trading")
        holding = self._holding(self.account, command["instrument"])
        if command["qty"] > holding["free"]:
            raise Refused("units")
        holding["free"] -= command["qty"]
        self._take_parts(holding, command["qty"])
        self.opened = True
        self.transfers += 1
        self._done(self.transfers)

    def _delivery(self, command):
        if any(one["sla"]["window"] for one in self.instruments):
            raise NotCovered("calls that are measured")
        self.settled |= command["do"] == "settle"
        self._answer({"kind": "delivery"})

    # -- orders in and out --------------------------------------------------------------------------------------

    def _place(self, new):
        self._open(new)

    def _open(self, new, quote=0):
        """The id of a new order; of a quote nobody is told that it was accepted."""
        label = new["label"]
        account = self.accounts[self.account]
        if account["mode"] == "easy":
            raise Refused("auto_mode", label)
        if new["instrument"] >= len(self.instruments):
            raise Refused("unknown_instrument", label)
        terms = self.instruments[new["instrument"]]
        if terms["status"] != "live":
            raise Refused("not_live", label)
        if not terms["min_qty"] <= new["qty"] <= terms["max_qty"] or new["qty"] % terms["lot"]:
            raise Refused("quantity", label)
        if new["kind"] == "limit":
            if not 0 < new["price"] <= terms["max_price"]:
                raise Refused("price", label)
            price, limit, tif = new["price"], new["price"], new["tif"]
            if tif == "day":
                raise NotCovered("an order for the day")
        else:
            price, tif = 0, "fok" if new["fok"] else "ioc"
            limit = self._slippage_limit(terms, new["side"], new["slippage"])
        order = {"id": 0, "account": self.account, "session": self.session, "label": label,
                 "instrument": new["instrument"], "side": new["side"], "price": price, "limit": limit, "tif": tif,
                 "remaining": new["qty"], "filled": 0, "hold": 0, "stp": new["stp"], "market": price == 0,
                 "to_consumption": new["to_consumption"], "quote": quote, "fees": (terms["maker_fee"], terms["taker_fee"])}
        hold = self._needed(order, terms)
        if len(new["tag"].encode()) > 64 or (new["tag"] and not label):
            raise Refused("text", label)
        earlier = (account["labels"].get(label) or account["tags"].get(label)) if label else None
        if earlier:
            raise Refused("duplicate_label", label, earlier)
        if tif == "post_only":
            best = self._front(terms["book"], self._other(new["side"]))
            if best is not None and crosses(new["side"], price, best["price"]):
                raise Refused("would_trade", label)
        if new["side"] == "buy" and hold > account["usd"]:
            raise Refused("funds", label)
        if new["side"] == "sell" and new["qty"] > account["holdings"].get(new["instrument"], {"free": 0})["free"]:
            raise Refused("units", label)
        if new["side"] == "sell" and self._suspended(self.account, new["instrument"]):
            raise Refused("suspended", label)
        order["id"] = self._number(tif)
        if new["tag"]:
            if len(account["tags"]) == TAGS_KEPT:
                del account["tags"][next(iter(account["tags"]))]
            account["tags"][label] = order["id"]
        if new["side"] == "buy":
            order["hold"] = hold
            account["usd"] -= hold
            account["usd_held"] += hold
        else:
            self._move_units(order, order["remaining"])
        if not quote:
            self._answer(self._order_body(order, "new"))
        self._run(order)
        return order["id"]

    def _number(self, tif):
        """The id of the next order; one that may rest has its slot from now on, the one that came free last if any did."""
        self.orders += 1
        slot = NO_SLOT
        if tif in RESTING:
            if self.free_slots:
                slot = self.free_slots.pop()
            else:
                slot, self.slots = self.slots, self.slots + 1
        return self.orders << SLOT_BITS | slot

    def _move_units(self, order, qty):
        """Units of an ask from free to held, or back where `qty` is below zero."""
        holding = self._holding(order["account"], order["instrument"])
        holding["free"] -= qty
        holding["held"] += qty

    @staticmethod
    def _other(side):
        return "sell" if side == "buy" else "buy"

    @staticmethod
    def _front(book, side):
        """The order of that side that trades first: the best price, then the oldest."""
        best = None
        for order in book:
            if order["side"] != side:
                continue
            if best is None or (order["price"] > best["price"] if side == "buy" else order["price"] < best["price"]):
                best = order
        return best

    def _slippage_limit(self, terms, side, slippage):
        best = self._front(terms["book"], self._other(side))
        if slippage is None or best is None:
            return None
        if side == "buy":
            return best["price"] * (10_000 + slippage) // 10_000
        return -(-best["price"] * max(0, 10_000 - slippage) // 10_000)

    def _hold_for(self, order, terms):
        value = order["price"] * order["remaining"] * terms["tick"]
        return value + bps(value, max(order["fees"]))

    def _needed(self, order, terms):
        if not order["market"]:
            return self._hold_for(order, terms) if order["side"] == "buy" else 0
        value = self._preview(order)[1]
        return value + bps(value, order["fees"][1]) if order["side"] == "buy" else 0

    def _beyond(self, order, price):
        return order["limit"] is not None and not crosses(order["side"], order["limit"], price)

    def _preview(self, order):
        """What would trade, what it would cost, and whether the limit stopped it."""
        book = self.instruments[order["instrument"]]["book"]
        tick = self.instruments[order["instrument"]]["tick"]
        side = self._other(order["side"])
        queue = sorted((o for o in book if o["side"] == side), key=lambda o: -o["price"] if side == "buy" else o["price"])
        left, qty, value = order["remaining"], 0, 0
        for resting in queue:
            if not left:
                break
            if self._beyond(order, resting["price"]):
                return qty, value, True
            part = min(left, resting["remaining"])
            if resting["account"] == order["account"] and order["stp"] != "allow":
                if order["stp"] in ("cancel_incoming", "cancel_both"):
                    break
                if order["stp"] == "decrement":
                    left -= part
                continue
            left -= part
            qty += part
            value += resting["price"] * part * tick
        return qty, value, False

    def _run(self, order):
        """Matches an order whose hold is set; what is left of it rests or is closed."""
        if order["tif"] == "fok":
            qty, _, limited = self._preview(order)
            if qty < order["remaining"]:
                slipped = limited and order["market"]
                return self._close(order, "no_fill_max_slippage" if slipped else "no_fill_no_liquidity")
        book = self.instruments[order["instrument"]]["book"]
        while order["remaining"]:
            resting = self._front(book, self._other(order["side"]))
            if resting is None or self._beyond(order, resting["price"]):
                return self._leave(order, limited=resting is not None)
            if resting["account"] == order["account"] and order["stp"] != "allow":
                if self._self_trade(order, resting):
                    return self._close(order, "self_trade")
                continue
            self._trade(order, resting)
        return self._close(order, "filled")

    def _leave(self, order, limited):
        if order["tif"] in ("gtc", "post_only"):
            return self._rest(order)
        amount = "partly_filled" if order["filled"] else "no_fill"
        return self._close(order, amount + ("_max_slippage" if limited and order["market"] else "_no_liquidity"))

    def _rest(self, order):
        terms = self.instruments[order["instrument"]]
        account = self.accounts[order["account"]]
        if order["side"] == "buy":
            self._free_usd(account, order["hold"] - self._hold_for(order, terms))
            order["hold"] = self._hold_for(order, terms)
        account["orders"][order["id"]] = order
        if order["label"]:
            account["labels"][order["label"]] = order["id"]
        terms["book"].append(order)

    @staticmethod
    def _free_usd(account, amount):
        account["usd"] += amount
        account["usd_held"] -= amount

    def _self_trade(self, order, resting):
        """Two orders of one account meet; true when the incoming one ends here."""
        how = order["stp"]
        if how == "cancel_incoming":
            return True
        if how in ("cancel_resting", "cancel_both"):
            self._close(resting, "self_trade")
            return how == "cancel_both"
        qty = min(order["remaining"], resting["remaining"])
        if qty == resting["remaining"]:
            self._close(resting, "self_trade")
        else:
            resting["remaining"] -= qty
            self._shrunk(resting, qty)
            self._report(resting["session"], 0, resting["account"], self._order_body(resting, "replaced"))
        order["remaining"] -= qty
        if order["side"] == "sell":
            self._move_units(order, -qty)
        return not order["remaining"]

    def _shrunk(self, resting, qty):
        if resting["side"] == "buy":
            needed = self._hold_for(resting, self.instruments[resting["instrument"]])
            self._free_usd(self.accounts[resting["account"]], resting["hold"] - needed)
            resting["hold"] = needed
        else:
            self._move_units(resting, -qty)

    def _trade(self, taker, maker):
        """One match, at the maker's price: dollars, fees, Units, reports."""
        terms = self.instruments[taker["instrument"]]
        qty = min(taker["remaining"], maker["remaining"])
        price = maker["price"]
        value = price * qty * terms["tick"]
        maker_fee, taker_fee = bps(value, maker["fees"][0]), bps(value, taker["fees"][1])
        for order in (maker, taker):
            order["remaining"] -= qty
            order["filled"] += qty
        self.trades += 1
        if maker["quote"]:
            self._count_quote_fill(maker, qty)
        if taker["side"] == "buy":
            buyer, seller, paid, net = taker, maker, value + taker_fee, value - maker_fee
        else:
            buyer, seller, paid, net = maker, taker, value + maker_fee, value - taker_fee
        wallet = self.accounts[buyer["account"]]
        wallet["usd_held"] -= paid
        if buyer is taker:
            buyer["hold"] -= paid
        else:
            needed = self._hold_for(buyer, terms)
            self._free_usd(wallet, buyer["hold"] - needed - paid)
            buyer["hold"] = needed
        self.accounts[0]["usd"] += maker_fee + taker_fee
        self._sell(seller, buyer, qty, net)
        for order in (maker, taker):
            body = self._order_body(order, "trade", trade=self.trades, last_price=price, last_qty=qty,
                                    aggressor=order is taker)
            self._report(order["session"], 0, order["account"], body)
        if not maker["remaining"]:
            self._close(maker, "filled")

    def _sell(self, seller, buyer, qty, net):
        holding = self._holding(seller["account"], seller["instrument"])
        holding["held"] -= qty
        sold, before, proceeds = self._take_parts(holding, qty), 0, 0
        bought = []
        for issuer, part, fresh in sold:
            share = net * (before + part) // qty - net * before // qty
            before += part
            # The proceeds of a first sale wait in escrow until the Units are delivered.
            if not (fresh and issuer == seller["account"]):
                proceeds += share
            bought.append([issuer, part, False])
        self._pay(seller["account"], proceeds)
        if buyer["to_consumption"]:
            self.opened = True
            self.transfers += 1
        else:
            holding = self._holding(buyer["account"], buyer["instrument"])
            holding["free"] += qty
            holding["parts"].extend(bought)

    @staticmethod
    def _take_parts(holding, qty):
        taken = []
        while qty:
            front = holding["parts"][0]
            part = min(qty, front[1])
            taken.append([front[0], part, front[2]])
            front[1] -= part
            qty -= part
            if not front[1]:
                holding["parts"].pop(0)
        return taken

    def _close(self, order, reason, answer=False):
        """Ends an order, resting or not, and tells whoever must know."""
        self._end(order)
        exec_type, status = {"cancelled": ("cancelled", "cancelled"), "self_trade": ("cancelled", "cancelled"),
                             "suspended": ("cancelled", "cancelled"), "filled": ("status", "filled")}.get(reason, ("expired", "expired"))
        body = self._order_body(order, exec_type, status=status, closure=reason, leaves=0)
        if answer:
            self._answer(body)
        if reason != "filled" and not (answer and order["session"] == self.session):
            self._report(order["session"], 0, order["account"], body)

    def _end(self, order):
        """Takes an order out, resting or not: what it holds goes back."""
        account = self.accounts[order["account"]]
        if account["orders"].pop(order["id"], None) is not None:
            book = self.instruments[order["instrument"]]["book"]
            book[:] = [other for other in book if other is not order]
        if account["labels"].get(order["label"]) == order["id"]:
            del account["labels"][order["label"]]
        if order["id"] & NO_SLOT != NO_SLOT:
            self.free_slots.append(order["id"] & NO_SLOT)
        if order["side"] == "buy":
            self._free_usd(account, order["hold"])
            order["hold"] = 0
        else:
            self._move_units(order, -order["remaining"])

    def _find(self, ref):
        account = self.accounts[self.account]
        number = ref.get("id") or account["labels"].get(ref.get("label"), 0)
        order = account["orders"].get(number)
        if order is None:
            raise Refused("unknown_order", ref.get("label", 0), number)
        return order

    def _cancel(self, command):
        self._close(self._find(command["order"]), "cancelled", answer=True)

    def _mass_cancel(self, command):
        def wanted(order):
            return (command["instrument"] in (None, order["instrument"]) and command["side"] in (None, order["side"])
                    and command["session"] in (None, order["session"]))

        account = self.accounts[self.account]
        self._answer({"kind": "mass_cancel",
                      "cancelled": sum(1 for order in account["orders"].values() if wanted(order))})
        self._cancel_all(wanted, self.account)

    def _cancel_all(self, wanted, account, reason="cancelled"):
        orders = self.accounts[account]["orders"]
        for number in sorted(orders):
            if wanted(orders[number]):
                self._close(orders[number], reason)

    def _replace(self, command):
        order = self._find(command["order"])
        if not command["qty"]:
            return self._close(order, "cancelled", answer=True)
        return self._change(order, command["qty"], command["price"], command["stp"], command["post_only"], self._replaced)

    def _replaced(self, order):
        body = self._order_body(order, "replaced")
        self._answer(body)
        if order["session"] != self.session:
            self._report(order["session"], 0, order["account"], body)

    def _change(self, order, qty, price, stp, post_only, tell=lambda order: None):
        """Gives an open order of the account another quantity and price, then matches it where it loses its place."""
        terms = self.instruments[order["instrument"]]
        account = self.accounts[self.account]
        label, number = order["label"], order["id"]
        if terms["status"] != "live":
            raise Refused("not_live", label, number)
        if qty > terms["max_qty"] or qty % terms["lot"]:
            raise Refused("quantity", label, number)
        if not 0 < price <= terms["max_price"]:
            raise Refused("price", label, number)
        changed = order | {"price": price, "limit": price, "remaining": qty}
        hold = self._hold_for(changed, terms) if order["side"] == "buy" else 0
        keeps_place = price == order["price"] and qty <= order["remaining"]
        if not keeps_place:
            best = self._front(terms["book"], self._other(order["side"]))
            if post_only and best is not None and crosses(order["side"], price, best["price"]):
                raise Refused("would_trade", label, number)
            if order["side"] == "buy" and hold > account["usd"] + order["hold"]:
                raise Refused("funds", label, number)
            free = self._holding(self.account, order["instrument"])["free"]
            if order["side"] == "sell" and qty > free + order["remaining"]:
                raise Refused("units", label, number)
        if order["side"] == "buy":
            self._free_usd(account, order["hold"] - hold)
        else:
            self._move_units(order, qty - order["remaining"])
        order |= {"price": price, "limit": price, "remaining": qty, "hold": hold}
        tell(order)
        if keeps_place:
            return None
        terms["book"][:] = [other for other in terms["book"] if other is not order]
        del account["orders"][number]
        if account["labels"].get(label) == number:
            del account["labels"][label]
        order |= {"stp": stp, "tif": "gtc"}
        return self._run(order)
