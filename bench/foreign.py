"""What an impression costs with models of other origins, beside the shipped bundle in the same run.

SASRec, GRU4Rec and BERT4Rec have random weights of the sizes that their papers and public code use; the re-ranker, its
features and the catalogue are those of the shipped bundle, and slates of 20 items are drawn at random. Then come the
shares of two stages, the share of items with a citation, and, for graphs that propose by an estimate, how many of the
items for which deleting events (50 of a session at most) proposes a citation have one as well.

    python -m bench.foreign
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa
import torch

from bench.machine import headline
from models.adapters.adapted import Adapted
from models.adapters.bert4rec import bert4rec
from models.adapters.export import export
from models.adapters.gru4rec import gru4rec
from models.adapters.sasrec import sasrec
from models.bundle import Bundle, attach, write_bundle
from models.data.synthetic import SyntheticSlates
from schemas.columnar import from_records
from stream.explain.pipeline import Explainer
from stream.settings import BUNDLED_MODEL

ITEMS, SLATES, BATCH, ROUNDS = 20, 64, 64, 5
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A model to be timed: its name, how long sessions are, and how its bundle is made."""

    name: str
    events: int
    bundle: Callable[[Path], Bundle]


def sasrec_weights(items: int, d: int = 50, layers: int = 2, positions: int = 201) -> Weights:
    """Return random weights with the names of pmixer/SASRec.pytorch."""
    torch.manual_seed(0)
    weights = {"item_emb.weight": _random(items + 1, d), "pos_emb.weight": _random(positions, d)}
    for depth in range(layers):
        attention, feed = f"attention_layers.{depth}", f"forward_layers.{depth}"
        weights |= {f"{attention}.in_proj_weight": _random(3 * d, d), f"{attention}.in_proj_bias": _random(3 * d)}
        weights |= {f"{attention}.out_proj.weight": _random(d, d), f"{attention}.out_proj.bias": _random(d)}
        for part in ("conv1", "conv2"):
            weights |= {f"{feed}.{part}.weight": _random(d, d)[..., None], f"{feed}.{part}.bias": _random(d)}
        for norm in (f"attention_layernorms.{depth}", f"forward_layernorms.{depth}"):
            weights |= {f"{norm}.weight": torch.ones(d), f"{norm}.bias": torch.zeros(d)}
    return weights | {"last_layernorm.weight": torch.ones(d), "last_layernorm.bias": torch.zeros(d)}


def gru_weights(items: int, d: int = 100) -> Weights:
    """Return random weights with the names of GRU4Rec_PyTorch_Official, embedding shared with the output."""
    torch.manual_seed(0)
    weights = {f"G.0.weight_{side}": 2 * _random(3 * d, d) for side in ("ih", "hh")}
    weights |= {f"G.0.bias_{side}": _random(3 * d) for side in ("ih", "hh")}
    return weights | {"Wy.weight": 8 * _random(items, d), "By.weight": _random(items, 1)}


def bert_weights(items: int, d: int = 64, layers: int = 2, positions: int = 51) -> Weights:
    """Return random weights with the names of BERT4Rec-VAE-Pytorch."""
    torch.manual_seed(0)
    weights = {
        "bert.embedding.token.weight": _random(items + 2, d),
        "bert.embedding.position.pe.weight": _random(positions, d),
    }
    for depth in range(layers):
        block = f"bert.transformer_blocks.{depth}"
        for place in range(3):
            weights |= _linear(f"{block}.attention.linear_layers.{place}", d, d)
        weights |= _linear(f"{block}.attention.output_linear", d, d)
        weights |= _linear(f"{block}.feed_forward.w_1", 4 * d, d) | _linear(f"{block}.feed_forward.w_2", d, 4 * d)
        for norm in ("input_sublayer.norm", "output_sublayer.norm"):
            weights |= {f"{block}.{norm}.a_2": torch.ones(d), f"{block}.{norm}.b_2": torch.zeros(d)}
    return weights | _linear("out", items + 1, d)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) * shape[-1] ** -0.5


def _linear(name: str, outputs: int, inputs: int) -> Weights:
    return {f"{name}.weight": _random(outputs, inputs), f"{name}.bias": _random(outputs)}


def foreign(adapted: Callable[[int], Adapted]) -> Callable[[Path], Bundle]:
    """Return what writes a bundle of an adapted session model with all else of the shipped bundle."""
    shipped = Bundle.load(BUNDLED_MODEL)

    def made(folder: Path) -> Bundle:
        model = adapted(len(shipped.catalog))
        graph, _ = export(model)
        masks = b"event_mask" in graph
        return write_bundle(
            folder,
            name="foreign",
            version="1",
            session_onnx=graph,
            item_vectors=model.item_vectors,
            item_bias=model.item_bias,
            catalog=shipped.catalog,
            reranker_text=shipped.reranker_text.read_text("utf-8"),
            features=shipped.features,
            card="# foreign\n",
            engagements=(),
            feature_set="f",
            max_length=model.max_length,
            empty_session=model.empty_session,
            ablations=None if masks else ("deletion", "substitution"),
            substitutes=() if masks else shipped.catalog.item_ids[:4],
            citation_margin=0.16,
        )

    return made


def cost(bundle: Bundle, events: int) -> tuple[float, dict[str, float]]:
    """Return processor microseconds an impression, the least of several rounds, and the share of each stage."""
    stages: dict[str, float] = defaultdict(float)

    def observe(stage: str, seconds: float) -> None:
        stages[stage] += seconds

    explainer = Explainer(bundle, observe=observe)
    source = SyntheticSlates(bundle)
    batch: pa.RecordBatch = from_records(
        "impression", [source.slate(events=events, items=ITEMS) for _ in range(SLATES)]
    )
    explainer.run(batch)
    stages.clear()
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        explainer.run(batch)
        rounds.append(time.process_time() - began)
    total = sum(stages.values())
    return min(rounds) * 1e6 / (SLATES * ITEMS), {name: each / total for name, each in stages.items()}


def cited(bundle: Bundle, events: int) -> npt.NDArray[np.bool_]:
    """Return which items of the slates get a citation, bool [items]."""
    source = SyntheticSlates(bundle)
    found = Explainer(bundle).explain([source.slate(events=events, items=ITEMS) for _ in range(SLATES)])
    return np.array([bool(item["evidence"]["history"]) for each in found for item in each["items"]])


def without_estimate(bundle: Bundle, folder: Path) -> Bundle | None:
    """Copy a bundle, and take the estimate out of its graph; None if it has none."""
    model = onnx.load(bundle.session_onnx)
    kept = [output for output in model.graph.output if output.name != "without_estimate"]
    if len(kept) == len(model.graph.output):
        return None
    shutil.copytree(bundle.path, folder)
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return attach(folder, {"session.onnx": model.SerializeToString()})


CASES = (
    Case("shipped", 20, lambda _: Bundle.load(BUNDLED_MODEL)),
    Case("SASRec, d 50, 2 layers", 20, foreign(lambda n: sasrec(sasrec_weights(n)))),
    Case("SASRec, d 50, 2 layers", 200, foreign(lambda n: sasrec(sasrec_weights(n)))),
    Case("GRU4Rec, d 100", 20, foreign(lambda n: gru4rec(gru_weights(n)))),
    Case("BERT4Rec, d 64, 2 layers", 50, foreign(lambda n: bert4rec(bert_weights(n), heads=2))),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Time each model in turn."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    print(headline())
    print(f"slates of {ITEMS}, batches of {BATCH}, processor time, least of {ROUNDS} rounds\n")
    print(f"{'':26} events  µs an impression  of shipped  score  ablate  cited  kept")
    base = np.nan
    for case in CASES:
        with TemporaryDirectory() as folder:
            bundle = case.bundle(Path(folder) / "bundle")
            us, stages = cost(bundle, case.events)
            named, kept = cited(bundle, case.events), ""
            if (exact := without_estimate(bundle, Path(folder) / "exact")) is not None:
                by_deletion = cited(exact, case.events)
                kept = f"{named[by_deletion].mean():.0%}"
        base = us if np.isnan(base) else base
        shares = f"{stages['score']:>7.0%}{stages['ablate']:>8.0%}{named.mean():>7.0%}{kept:>6}"
        print(f"{case.name:26}{case.events:>7}{us:>18.1f}{us / base:>11.1f}x{shares}")


if __name__ == "__main__":
    main()
