"""Terms of service in the reference model: windows and what closes with them, probes, what is attested, who is off the
roster, what that costs. Written from the rules (design, README, the doc comments of the engine's `sla.rs`).

Calls are not foretold, so a log that settles some under terms that measure them is not covered.
"""

from rejects import Refused
from signatures import signed

NO_TERMS = {"window": 0, "sample": 0, "error_max": 10_000, "uptime_min": 0, "penalty": 0, "breaches_to_suspend": 0,
            "probes_to_decide": 3, "collateral_per_unit": 0, "attested": False}
#: Parts of a window in which a supplier was asked, or served.
PARTS = 60
SHARES = ("ttft_percentile", "pace_percentile", "error_max", "uptime_min", "penalty_bps", "late_tolerance", "cover_penalty")
MINUTE, DAY = 60 * 10**9, 86_400 * 10**9


class Service:
    """The part of the market that knows how suppliers serve."""

    def _service(self, supplier, instrument):
        return self.services.setdefault((supplier, instrument), {
            "faults": 0, "overloaded": 0, "parts": set(), "breaches": 0, "probes": 0, "passed": False, "breach": False})

    def _suspended(self, account, instrument):
        return self.suppliers.get(account, False) or self._barred(account, instrument)

    def _barred(self, account, instrument):
        """For breaches, or for the quality of its models."""
        service = self.services.get((account, instrument))
        return (account, instrument) in self.unfit or (service is not None and service["breach"])

    def _close_asks(self, account):
        """Nobody may buy on the book what its seller may not deliver."""
        self._cancel_all(lambda order: order["side"] == "sell" and self._suspended(account, order["instrument"]),
                         account, "suspended")

    def _supplier(self, command):
        self._instrument(command["instrument"])
        if command["supplier"] not in self.suppliers:
            raise Refused("not_a_supplier")

    # -- terms --------------------------------------------------------------------------------------------------

    def _set_sla_terms(self, command):
        instrument = self._instrument(command["instrument"])
        possible = (all(command[share] <= 10_000 for share in SHARES) and command["penalty"] >= 0
                    and command["collateral_per_unit"] >= 0 and command["cover_ceiling"] <= 1_000_000
                    and (not command["window"] or MINUTE <= command["window"] <= DAY))
        if not possible:
            raise Refused("out_of_range")
        instrument["sla"] = command
        for (_, of), service in self.services.items():
            if of == command["instrument"]:
                service |= {"faults": 0, "overloaded": 0, "parts": set()}
        self._schedule(instrument)
        self._review_quality_of(command["instrument"])
        self._done()

    def _schedule(self, instrument):
        length = instrument["sla"]["window"]
        instrument["ends"] = (self.at // length + 1) * length if length else None

    def _report_fault(self, command):
        self._supplier(command)
        terms = self.instruments[command["instrument"]]["sla"]
        if terms["window"]:
            service = self._service(command["supplier"], command["instrument"])
            service["faults"] += 1
            service["overloaded"] += command["fault"] == "overloaded"
            service["parts"].add(self.at % terms["window"] // -(-terms["window"] // PARTS))
        self._done()

    def _close_window(self, number):
        """Whoever was asked in it is judged. Nobody delivered in it, or the log would not be covered."""
        instrument = self.instruments[number]
        terms = instrument["sla"]
        for (supplier, of), service in self.services.items():
            if of != number or not service["parts"]:
                continue
            faults, errors = service["faults"], service["faults"] - service["overloaded"]
            parts = len(service["parts"])
            service |= {"faults": 0, "overloaded": 0, "parts": set()}
            broken = 0
            if faults >= terms["sample"]:
                failing = errors * 10_000 > errors * terms["error_max"]
                away = 0 < parts * terms["uptime_min"]
                broken = failing + away
            if broken:
                service["breaches"] = min(service["breaches"] + 1, 255)
            elif faults >= terms["sample"]:
                service["breaches"] = 0
            if broken and terms["penalty"]:
                self._charge(supplier, 0, number, terms["penalty"] * broken)
            if terms["breaches_to_suspend"] and service["breaches"] >= terms["breaches_to_suspend"]:
                self._set_breach(supplier, number, True)
        self._schedule(instrument)

    def _report_probe(self, command):
        self._supplier(command)
        service = self._service(command["supplier"], command["instrument"])
        before = service["probes"] if service["passed"] == command["passed"] else 0
        service |= {"probes": min(before + 1, 255), "passed": command["passed"]}
        decides = self.instruments[command["instrument"]]["sla"]["probes_to_decide"]
        if decides and service["probes"] >= decides:
            if command["passed"]:
                service["breaches"] = 0
            self._set_breach(command["supplier"], command["instrument"], not command["passed"])
        self._done()

    def _set_breach(self, supplier, instrument, breach):
        service = self._service(supplier, instrument)
        if service["breach"] != breach:
            service["breach"] = breach
            self._standing_changed(supplier, instrument)

    def _standing_changed(self, supplier, instrument):
        if self._barred(supplier, instrument):
            self._close_asks(supplier)
            # What it fails to deliver from now on is not evidence of anything new.
            self._service(supplier, instrument).update({"probes": 0, "passed": False})

    # -- what is attested ---------------------------------------------------------------------------------------

    def _set_benchmark(self, command):
        self.accounts[self.account]["benchmark"] = command["allowed"]
        self._done()

    def _attest(self, command):
        public_key = self.public_keys.get(command["key"])
        if public_key is None or self.keys[command["key"]] != self.account:
            raise Refused("unknown_key")
        supplier, of, model = command["supplier"], command["instrument"], command["model"]
        instrument = self._instrument(of)
        if supplier not in self.suppliers:
            raise Refused("not_a_supplier")
        if command["valid_until"] <= self.at:
            raise Refused("out_of_range")
        if [of, model] not in self.offers[supplier]:
            raise Refused("text")
        statement = (f"grid quality attestation 1\nsupplier {supplier}\ninstrument {instrument['symbol']}\nmodel {model}\n"
                     f"index {instrument['quality'][0]}\nscore {command['score']}\nvalid until {command['valid_until']}\n")
        if not signed(bytes.fromhex(public_key), statement.encode(), bytes.fromhex(command["signature"])):
            raise Refused("bad_signature")
        self.attested[supplier, of, model] = command
        self.attestation_ends.add((command["valid_until"], supplier, of))
        self._review_quality(supplier, of)
        self._done()

    def _review_offers(self, supplier):
        """What was said of what is no longer offered is forgotten."""
        for place in [place for place in self.attested if place[0] == supplier]:
            if [place[1], place[2]] not in self.offers[supplier]:
                del self.attested[place]
        for instrument in range(len(self.instruments)):
            self._review_quality(supplier, instrument)

    def _review_quality_of(self, instrument):
        for supplier in sorted(self.suppliers):
            self._review_quality(supplier, instrument)

    def _review_quality(self, supplier, number):
        """Every model that it offers must do, since any of them may get a call."""
        instrument, unfit = self.instruments[number], False
        for model in (model for of, model in self.offers[supplier] if of == number):
            said = self.attested.get((supplier, number, model))
            if said is not None and said["valid_until"] > self.at:
                unfit |= said["score"] < instrument["quality"][1]
            else:
                unfit |= instrument["sla"]["attested"]
        if ((supplier, number) in self.unfit) != unfit:
            (self.unfit.add if unfit else self.unfit.discard)((supplier, number))
            self._standing_changed(supplier, number)

    # -- what it costs ------------------------------------------------------------------------------------------

    def _set_collateral(self, command):
        self._instrument(command["instrument"])
        if self.account not in self.suppliers:
            raise Refused("not_a_supplier")
        if command["amount"] < 0:
            raise Refused("out_of_range")
        place, account = (self.account, command["instrument"]), self.accounts[self.account]
        moved = command["amount"] - self.collateral.get(place, 0)
        if moved > account["usd"]:
            raise Refused("funds")
        self.collateral[place] = command["amount"]
        account["usd"] -= moved
        account["usd_held"] += moved
        self._done()

    def _charge(self, owes, to, instrument, due):
        """Free dollars first, then collateral; the rest is owed."""
        account, place = self.accounts[owes], (owes, instrument)
        free = min(due, account["usd"])
        held = min(due - free, self.collateral.get(place, 0))
        account["usd"] -= free
        account["usd_held"] -= held
        if held:
            self.collateral[place] -= held
        if due > free + held:
            self.debts[owes, to] = self.debts.get((owes, to), 0) + due - free - held
        self._pay(to, free + held)

    def _pay(self, account, amount):
        """Dollars come in: what the account owes is paid out of them first."""
        self.accounts[account]["usd"] += amount
        for owes, to in sorted(key for key in self.debts if key[0] == account):
            paid = min(self.debts[owes, to], self.accounts[account]["usd"])
            self.accounts[account]["usd"] -= paid
            self.accounts[to]["usd"] += paid
            self.debts[owes, to] -= paid
            if self.debts[owes, to]:
                return
            del self.debts[owes, to]
