"""Makes the data of banking.yaml: requests to a bank with what they are about, to train on and to measure with.

    redraft data get clinc150
    redraft data get mini
    python recipes/banking/prepare.py

CLINC150 (Larson et al. 2019, arXiv 1909.02027, CC-BY-3.0) has 15 intents of a bank's customers. Who has rows of their
own needs none of this: one line a request, as it is here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from redraft.data.mini import held_out

INTENTS = {
    *("account_blocked", "balance", "bill_balance", "bill_due", "freeze_account", "interest_rate", "min_payment"),
    *("order_checks", "pay_bill", "pin_change", "report_fraud", "routing", "spending_history", "transactions"),
    "transfer",
}


def main() -> None:
    """Writes train.jsonl and test.jsonl; a tenth, chosen by a hash of the request, is held out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clinc150", type=Path, default=Path("data/clinc150/train.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("data/banking"))
    given = parser.parse_args()
    parts: dict[str, list[str]] = {"train": [], "test": []}
    for line in given.clinc150.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["intent"] in INTENTS:
            reply = row["intent"].replace("_", " ")
            made = json.dumps({"prompt": row["text"], "completion": reply}, ensure_ascii=False)
            parts["test" if held_out(row["text"]) else "train"].append(made)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        (given.out / f"{name}.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
        print(f"{given.out / name}.jsonl: {len(rows)} rows")


if __name__ == "__main__":
    main()
