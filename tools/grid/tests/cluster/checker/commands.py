"""The log form of the engine's entries: postcard, read by hand from the declarations in `engine/src/command.rs`.

Variants and fields are append-only there, so numbers here never change their meaning. A decoded entry is a plain dict.
"""


class Reader:
    """Postcard's primitives: variable-length integers, seven bits a byte, the low ones first."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def byte(self):
        value = self.data[self.at]
        self.at += 1
        return value

    def uint(self):
        value, shift = 0, 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def int(self):
        value = self.uint()
        return (value >> 1) ^ -(value & 1)

    def raw(self, count):
        value = self.data[self.at : self.at + count]
        if len(value) != count:
            raise IndexError("the bytes end early")
        self.at += count
        return bytes(value)

    def flag(self):
        return {0: False, 1: True}[self.byte()]

    def blob(self):
        return self.raw(self.uint())

    def wide(self):
        """Sixteen bytes, the low ones first; none for zero."""
        value = self.blob()
        if len(value) not in (0, 16):
            raise IndexError(f"a wide number of {len(value)} bytes")
        return int.from_bytes(value, "little")

    def text(self):
        return self.blob().decode()

    def hash(self):
        return self.raw(32).hex()

    def option(self, read):
        return read() if self.flag() else None

    def one_of(self, *names):
        return names[self.uint()]


SIDES = ("buy", "sell")
TIFS = ("gtc", "ioc", "fok", "day", "post_only")
STPS = ("allow", "cancel_incoming", "cancel_resting", "cancel_both", "decrement")


def _place(r):
    order = {"do": "place", "instrument": r.uint(), "side": r.one_of(*SIDES)}
    if r.uint() == 0:
        order |= {"kind": "limit", "price": r.uint(), "tif": r.one_of(*TIFS)}
    else:
        order |= {"kind": "market", "slippage": r.option(r.uint), "fok": r.flag()}
    return order | {"qty": r.uint(), "stp": r.one_of(*STPS), "label": r.uint(), "tag": r.text(),
                    "to_consumption": r.flag()}


def _order(r):
    return {"id" if r.uint() == 0 else "label": r.uint()}


def _cancel(r):
    return {"do": "cancel", "order": _order(r)}


def _replace(r):
    return {"do": "replace", "order": _order(r), "qty": r.uint(), "price": r.uint(), "stp": r.one_of(*STPS),
            "post_only": r.flag()}


def _mass_cancel(r):
    return {"do": "mass_cancel", "instrument": r.option(r.uint),
            "side": r.option(lambda: r.one_of(*SIDES)), "session": r.option(r.wide)}


def _quote(r):
    def side():
        return {"price": r.uint(), "qty": r.uint()}

    return {"instrument": r.uint(), "quote": r.byte(), "bid": side(), "ask": side()}


def _mass_quote(r):
    return {"do": "mass_quote", "entries": [_quote(r) for _ in range(r.uint())], "stp": r.one_of(*STPS),
            "post_only": r.flag()}


def _protection(r):
    return {"window": r.uint(), "fills": r.uint(), "qty": r.uint()}


def _transfer(r):
    return {"do": "transfer", "instrument": r.uint(), "qty": r.uint(), "to": r.one_of("consumption", "trading")}


def _reserve(r):
    return {"do": "reserve", "instrument": r.uint(), "tokens": r.uint(), "request": r.wide(), "valid_for": r.uint(),
            "key": r.uint(), "surface": r.one_of("chat_completions", "messages", "responses")}


def _settle(r):
    return {"do": "settle", "reservation": r.uint(), "supplier": r.uint(), "offer": r.byte(), "prompt": r.uint(),
            "completion": r.uint(), "ttft_us": r.uint(), "duration_us": r.uint(), "estimated": r.flag(),
            "partial": r.flag(), "distrusted": r.flag(), "cover": r.one_of("issuer", "failed", "unable"),
            "attempts": r.byte()}


def _release(r):
    return {"do": "release", "reservation": r.uint(), "supplier": r.uint()}


def _units(name):
    return lambda r: {"do": name, "instrument": r.uint(), "qty": r.uint()}


def _mode(r):
    return r.one_of("easy", "advanced")


def _define(r):
    spec = {"do": "define", "symbol": r.text(), "name": r.text(), "description": r.text()}
    spec["quality"] = [r.text()] + [r.uint() for _ in range(5)]
    spec |= {"tick": r.int(), "lot": r.uint(), "min_qty": r.uint(), "max_qty": r.uint(), "max_price": r.uint(),
             "maker_fee": r.uint(), "taker_fee": r.uint(), "window": r.option(r.uint),
             "movement": r.one_of("at_fill", "swept"), "status": r.one_of("preview", "live", "halted")}
    return spec


def _supplier(r):
    profile = {"do": "register_supplier", "name": r.text(), "base_url": r.text(), "credential": r.blob().hex()}
    profile["offers"] = [[r.uint(), r.text()] for _ in range(r.uint())]
    return profile | {"suspended": r.flag()}


FAULTS = ("refused", "overloaded", "slow", "stalled", "cut", "malformed", "lied", "unreachable")


def _sla_terms(r):
    return {"do": "set_sla_terms", "instrument": r.uint(), "window": r.uint(), "sample": r.uint(),
            "ttft_percentile": r.uint(), "pace_percentile": r.uint(), "error_max": r.uint(), "uptime_min": r.uint(),
            "penalty_bps": r.uint(), "penalty": r.int(), "breaches_to_suspend": r.byte(), "probes_to_decide": r.byte(),
            "late_is_free": r.flag(), "late_tolerance": r.uint(), "slow_is_free_from": r.uint(),
            "collateral_per_unit": r.int(), "cover_penalty": r.uint(), "cover_ceiling": r.uint(), "attested": r.flag()}


def _attestation(r):
    return {"do": "attest", "supplier": r.uint(), "instrument": r.uint(), "model": r.text(), "score": r.uint(),
            "valid_until": r.uint(), "key": r.hash(), "signature": r.blob().hex()}


COMMANDS = (
    _place,
    _cancel,
    _replace,
    _mass_cancel,
    _transfer,
    _reserve,
    _settle,
    _release,
    _units("issue"),
    _units("transfer_issuance"),
    lambda r: {"do": "set_mode", "mode": _mode(r)},
    lambda r: {"do": "add_signing_key", "key": r.hash(), "label": r.text()},
    lambda r: {"do": "revoke_signing_key", "fingerprint": r.hash()},
    lambda r: {"do": "add_consumption_key", "hash": r.hash(), "prefix": r.text(), "name": r.text(),
               "expires_at": r.option(r.uint)},
    lambda r: {"do": "revoke_consumption_key", "hash": r.hash()},
    lambda r: {"do": "open_account", "name": r.text(), "mode": _mode(r), "tier": r.flag(), "operator": r.flag()},
    lambda r: {"do": "deposit", "amount": r.int()},
    lambda r: {"do": "withdraw", "amount": r.int()},
    lambda r: {"do": "set_auto_buy", "enabled": r.flag(), "quantity": r.uint(), "threshold": r.uint(),
               "slippage": r.uint(), "ceiling": r.int()},
    _define,
    lambda r: {"do": "set_status", "instrument": r.uint(), "status": r.one_of("preview", "live", "halted")},
    _supplier,
    _units("set_capacity"),
    lambda r: {"do": "genesis", "key": r.hash()},
    lambda r: {"do": "open_session", "session": r.wide(), "key": r.hash()},
    lambda r: {"do": "establish", "session": r.wide(), "key": r.hash(), "grace": r.option(r.uint),
               "connection": r.uint()},
    lambda r: {"do": "session_lost", "session": r.wide(), "connection": r.uint()},
    lambda r: {"do": "tick"},
    lambda r: {"do": "set_account_terms", "calls_per_day": r.uint(), "at_once": r.uint(), "paid_per_call": r.int(),
               "credit": r.int(), "one_way": r.flag()},
    lambda r: {"do": "credit", "amount": r.int()},
    lambda r: {"do": "sign_up_credit"},
    lambda r: {"do": "set_auto_reload", "enabled": r.flag(), "threshold": r.int(), "amount": r.int(),
               "monthly_limit": r.option(r.int)},
    lambda r: {"do": "set_payment_method", "method": r.option(lambda: [r.text(), r.text()])},
    lambda r: {"do": "set_credit_line", "limit": r.int()},
    lambda r: {"do": "repay_credit", "amount": r.int()},
    lambda r: {"do": "reload_paid", "reload": r.uint(), "amount": r.int()},
    lambda r: {"do": "reload_failed", "reload": r.uint(), "reason": r.one_of("declined", "unresolved")},
    _sla_terms,
    lambda r: {"do": "report_fault", "instrument": r.uint(), "supplier": r.uint(), "fault": r.one_of(*FAULTS)},
    lambda r: {"do": "report_probe", "instrument": r.uint(), "supplier": r.uint(), "passed": r.flag()},
    lambda r: {"do": "set_collateral", "instrument": r.uint(), "amount": r.int()},
    lambda r: {"do": "set_managed", "instrument": r.uint(), "price": r.uint(), "capacity": r.uint()},
    lambda r: {"do": "set_benchmark", "allowed": r.flag()},
    _attestation,
    _mass_quote,
    lambda r: {"do": "set_quote_protection", "protection": r.option(lambda: _protection(r))},
)


def decode(data):
    """One entry: session, client_seq, account and the command."""
    r = Reader(data)
    try:
        entry = {"session": r.wide(), "client_seq": r.uint(), "account": r.uint()}
        entry["command"] = COMMANDS[r.uint()](r)
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"no entry: {data.hex()}: {error!r}") from None
    if r.at != len(data):
        raise ValueError(f"{len(data) - r.at} bytes behind the entry {data.hex()}")
    return entry
