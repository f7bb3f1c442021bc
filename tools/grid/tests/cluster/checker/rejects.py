"""How the reference model says no: to a client, and to a log that it does not know enough about."""

REJECT = {
    "unknown_session": 1, "not_permitted": 2, "unknown_account": 3, "unknown_key": 4, "duplicate_key": 5, "auto_mode": 6,
    "bad_signature": 7,
    "unknown_instrument": 10, "not_live": 11, "quantity": 12, "price": 13, "out_of_range": 14, "text": 15,
    "duplicate_label": 20, "unknown_order": 21, "would_trade": 22, "quotes_pulled": 24, "funds": 30, "units": 31,
    "not_a_supplier": 50, "beyond_capacity": 51, "beyond_collateral": 52, "suspended": 53,
}


class NotCovered(Exception):
    """The log has something that this model does not know."""


class Refused(Exception):
    """A reject: code, the label and the order that its report carries."""

    def __init__(self, reject, label=0, order=0):
        super().__init__(reject)
        self.code, self.label, self.order = REJECT[reject], label, order
