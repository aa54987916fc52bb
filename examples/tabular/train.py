# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "numpy==2.4.6",
#   "scikit-learn==1.9.1",
#   "skops==0.16.0",
# ]
# ///
# mypy: disable-error-code="import-not-found, import-untyped, misc, no-untyped-call"
# (scikit-learn is no dependency of Penstock, so a checker without it sees Any here.)
"""Trains the models of the tabular example, and writes them with the held-out samples beside them.

The data are scikit-learn's breast cancer set: 569 samples of 30 measures of cell nuclei, malignant (0) or benign (1).
Half of them, stratified, is held out as eval.npz. Written are ``model.skops``, a forest of 300 trees; ``small.skops``,
one of 24; and ``linear.skops``, a logistic regression. A few seconds on one core; the same versions give the same
models.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from zipfile import ZIP_DEFLATED

import numpy as np
import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 1
REQUIRED_ACCURACY = 0.93


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where to write")
    folder = parser.parse_args().folder

    x, y = load_breast_cancer(return_X_y=True)
    seen_x, held_x, seen_y, held_y = train_test_split(
        x.astype(np.float32), y.astype(np.int64), test_size=0.5, stratify=y, random_state=SEED
    )
    models = {
        "model": RandomForestClassifier(300, random_state=SEED),
        "small": RandomForestClassifier(24, random_state=SEED),
        "linear": make_pipeline(StandardScaler(), LogisticRegression(C=0.3)),
    }
    accuracy = {}
    for name, model in models.items():
        model.fit(seen_x, seen_y)
        accuracy[name] = float(model.score(held_x, held_y))
        skops.io.dump(model, folder / f"{name}.skops", compression=ZIP_DEFLATED)
        print(f"{name}: {accuracy[name]:.2%} of {len(held_y)} right")
    np.savez_compressed(folder / "eval.npz", x=held_x, y=held_y)
    if accuracy["model"] < REQUIRED_ACCURACY:
        raise SystemExit(f"model.skops has {accuracy['model']:.2%} right, below {REQUIRED_ACCURACY:.2%}")


if __name__ == "__main__":
    main()
