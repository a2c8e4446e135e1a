"""``whyrec models import``: files in, a bundle that scores as its source out, or a refusal that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from models.bundle import Bundle
from models.errors import BundleError
from models.session.runtime import SessionModel, left_pad
from schemas.errors import WhyrecError
from stream.cli import app
from tests.adapters import modules
from tests.adapters.originals import (
    Bert4recOriginal,
    Gru4recOriginal,
    Original,
    RecboleOriginal,
    SasrecOriginal,
    TwoTowerOriginal,
)
from tests.adapters.written import sessions_around
from tests.graphs import mean_graph

ITEMS, D = modules.ITEMS, modules.D
NOISE = 1e-5

FAMILIES: dict[str, tuple[Original, list[str]]] = {
    "sasrec": (SasrecOriginal(ITEMS, D, 12, 2, 2, "pre-norm"), ["--heads", "2", "--variant", "pre-norm"]),
    "gru4rec": (Gru4recOriginal(ITEMS, (D,)), ["--max-length", "24"]),
    "bert4rec": (Bert4recOriginal(ITEMS, D, 13, 2, 2), ["--heads", "2"]),
    "two-tower": (TwoTowerOriginal(ITEMS, D, shared=True), ["--max-length", "8"]),
    "recbole": (RecboleOriginal("SASRec", ITEMS, D, 10, 2, 2, "gelu"), ["--heads", "2"]),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a catalogue."""
    monkeypatch.chdir(tmp_path)
    popularity = np.random.default_rng(0).permutation(ITEMS)
    lines = [f"f{index},Film {index},Drama|War,{popularity[index - 1]}" for index in range(1, ITEMS + 1)]
    Path("films.csv").write_text("item_id,title,category,popularity\n" + "\n".join(lines))
    return tmp_path


def run(*arguments: str) -> str:
    """Import into the folder ``bundle``; return what was printed."""
    given = ["models", "import", "--catalog", "films.csv", "--out", "bundle", *arguments]
    done = CliRunner().invoke(app, given, catch_exceptions=True)
    if isinstance(done.exception, WhyrecError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def opened() -> SessionModel:
    return SessionModel(Bundle.load(Path("bundle")))


def scores(model: SessionModel, session: list[int]) -> Any:
    bundle = Bundle.load(Path("bundle"))
    items = left_pad([session], model.max_length)
    vector = model.run(items, (items > 0).astype(np.int64), without=False).vector[0]
    return bundle.item_vectors @ vector + bundle.item_bias


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_each_family(family: str, folder: Path) -> None:
    original, settings = FAMILIES[family]
    original.randomised(1)
    torch.save({"state_dict": original.state_dict()}, "model.pth")
    printed = run("--family", family, "--checkpoint", "model.pth", *settings)
    assert "the exported graph gives the module's scores within" in printed
    assert "wrote bundle@1 to bundle" in printed
    assert "does not fit" not in printed
    model = opened()
    for session in sessions_around(model, ITEMS):
        expected = original.scores(session[-model.max_length :])
        np.testing.assert_allclose(scores(model, session), expected, atol=NOISE * expected.std())
    assert [each.name for each in folder.iterdir() if "new" in each.name] == []


def test_an_onnx_file_with_weights_beside_it_and_substitutes(folder: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(ITEMS + 1, D)).astype(np.float32)
    vectors[0] = 0
    np.save("vectors.npy", vectors)
    np.save("bias.npy", vectors[:, 0].astype(np.float64))
    graph = onnx.load_from_string(mean_graph(vectors, vectors[1]))
    onnx.save(graph, "graph.onnx", save_as_external_data=True, location="graph.weights", size_threshold=16)
    assert Path("graph.weights").exists()
    printed = run("--onnx", "graph.onnx", "--item-vectors", "vectors.npy", "--item-bias", "bias.npy",
                  "--max-length", "9", "--empty-session", "run", "--name", "mean", "--version", "3")  # fmt: skip
    assert "citations must survive deletion, substitution" in printed
    model, bundle = opened(), Bundle.load(Path("bundle"))
    assert bundle.model_version == "mean@3"
    assert "graph.weights" not in bundle.manifest.files
    popular = np.argsort(-bundle.catalog.popularity[1:])[:4]
    assert bundle.manifest.substitutes == tuple(bundle.catalog.item_ids[index] for index in popular)
    expected = vectors @ (vectors[1] + vectors[[3, 5]].mean(axis=0)) + vectors[:, 0]
    np.testing.assert_allclose(scores(model, [3, 5]), expected, atol=1e-4)


def test_without_popularity_deletion_alone_confirms_and_the_report_says_what_to_do(folder: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(ITEMS + 1, D)).astype(np.float32)
    vectors[0] = 0
    np.save("vectors.npy", vectors)
    Path("graph.onnx").write_bytes(mean_graph(vectors, vectors[1]))
    lines = Path("films.csv").read_text().splitlines()
    Path("films.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    printed = run("--onnx", "graph.onnx", "--item-vectors", "vectors.npy", "--max-length", "9")
    assert "citations must survive deletion\n" in printed
    assert "a citation is then less certain" in " ".join(printed.replace("│", " ").split())


def test_a_module_of_pytorchs_own_transformer(folder: Path) -> None:
    module = modules.transformer()
    assert isinstance(module, modules.Transformer)
    np.save("vectors.npy", module.item.weight.detach().numpy())
    run("--module", "tests.adapters.modules:transformer", "--item-vectors", "vectors.npy", "--max-length", "12")
    model = opened()
    for session in sessions_around(model, ITEMS):
        with torch.inference_mode():
            vector = module(torch.tensor([session[-12:]]))[0].numpy()
        expected = module.item.weight.detach().numpy() @ vector
        np.testing.assert_allclose(scores(model, session), expected, atol=NOISE * expected.std())


def test_a_module_that_reads_engagements_in_their_owners_words(folder: Path) -> None:
    words = [{"name": "play", "role": "positive", "verbs": {"en": "played {titles}"}}, "open", "hide"]
    Path("words.json").write_text(json.dumps(words))
    with pytest.raises(BundleError, match="the names of the engagements that it reads, got none"):
        run("--module", "tests.adapters.modules:with_engagements")
    run("--module", "tests.adapters.modules:with_engagements", "--engagements", "words.json")
    bundle = Bundle.load(Path("bundle"))
    assert bundle.manifest.engagement_names == ("play", "open", "hide")
    assert bundle.manifest.engagements[0].role == "positive"
    items, engagements = np.array([[4, 8]]), np.array([[1, 3]])
    vector = opened().run(items, engagements, without=False).vector[0]
    module = modules.with_engagements().module
    with torch.inference_mode():
        expected = module(torch.from_numpy(items), torch.from_numpy(engagements))[0].numpy()
    np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_a_module_of_a_fixed_window_needs_its_length(folder: Path) -> None:
    module = modules.window()
    assert isinstance(module, modules.Window)
    np.save("vectors.npy", module.item.weight.detach().numpy())
    given = ("--module", "tests.adapters.modules:window", "--item-vectors", "vectors.npy", "--max-length", "12")
    with pytest.raises(BundleError, match=r"a module that torch\.onnx\.export can trace on item_index"):
        run(*given)
    run(*given, "--fixed-length", "12")
    for session in ([3], [1, 2, 3, 4, 5]):
        with torch.inference_mode():
            vector = module(torch.tensor([[0] * (12 - len(session)) + session]))[0].numpy()
        np.testing.assert_allclose(scores(opened(), session), module.item.weight.detach().numpy() @ vector, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("with_numpy", r"(?s)computes with Python numbers or numpy.*modules\.py:\d+: "),
        ("numbers_only", "without item_index: the module leaves PyTorch in forward"),
        ("nothing", r"a function that gives a torch\.nn\.Module, got a NoneType"),
        ("absent", r"PACKAGE\.MODULE:FUNCTION that can be imported"),
    ],
)
def test_a_module_that_leaves_pytorch_is_refused_and_nothing_is_left(function: str, message: str, folder: Path) -> None:
    np.save("vectors.npy", np.ones((ITEMS + 1, D), dtype=np.float32) * np.arange(ITEMS + 1)[:, None])
    with pytest.raises(BundleError, match=message):
        run("--module", f"tests.adapters.modules:{function}", "--item-vectors", "vectors.npy", "--max-length", "12")
    assert sorted(each.name for each in folder.iterdir()) == ["films.csv", "vectors.npy"]


def test_a_module_of_the_current_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("own_model.py").write_text("from tests.adapters.modules import transformer as build\n")
    np.save("vectors.npy", np.random.default_rng(0).normal(size=(ITEMS + 1, D)))
    run("--module", "own_model:build", "--item-vectors", "vectors.npy", "--max-length", "12")


def test_a_reranker_with_its_owners_features(folder: Path) -> None:
    np.save("vectors.npy", np.random.default_rng(0).normal(size=(ITEMS + 1, D)))
    features = [
        {"name": "hour", "owner": "context", "display_name": "Hour of the day", "is_personal": False},
        {"name": "fit", "owner": "session", "display_name": "Fit"},
        {"name": "age_days", "owner": "item", "display_name": "Days since release"},
    ]
    random = np.random.default_rng(2)
    rows = random.normal(size=(500, 3))
    data = lightgbm.Dataset(rows, (rows[:, 1] + random.normal(size=500) > 0).astype(float),
                            feature_name=[each["name"] for each in features], params={"verbosity": -1})  # fmt: skip
    booster = lightgbm.train({"objective": "binary", "num_leaves": 4, "verbosity": -1}, data, 5)
    booster.save_model("trees.txt")
    Path("features.json").write_text(json.dumps(features))
    given = ("--family", "two-tower", "--item-vectors", "vectors.npy", "--reranker", "trees.txt")
    with pytest.raises(WhyrecError, match="--reranker and --features together"):
        run(*given)
    run(*given, "--features", "features.json", "--feature-set", "evening")
    bundle = Bundle.load(Path("bundle"))
    assert bundle.manifest.feature_set == "evening"
    assert bundle.manifest.reranker_output == "prediction"
    assert bundle.session_column == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "models import needs one session model"),
        (["--family", "sasrec", "--checkpoint", "absent.pth"], "absent.pth: expected a checkpoint, got No such file"),
        (["--family", "lstm", "--checkpoint", "model.pth"], "--family: expected one of sasrec, gru4rec"),
        (["--family", "bert4rec", "--checkpoint", "model.pth"], "--heads: expected the number of heads"),
        (["--onnx", "graph.onnx"], "--onnx needs --item-vectors FILE and --max-length N"),
        (["--family", "sasrec", "--checkpoint", "model.pth", "--max-length", "99"], "expected at most 12"),
    ],
)
def test_what_is_missing_is_named(arguments: list[str], message: str, folder: Path) -> None:
    torch.save(SasrecOriginal(ITEMS, D, 12, 1, 1, "original").state_dict(), "model.pth")
    with pytest.raises(WhyrecError, match=message):
        run(*arguments)


def test_a_catalogue_of_other_items_and_a_folder_that_is_in_use_are_refused(folder: Path) -> None:
    np.save("vectors.npy", np.random.default_rng(0).normal(size=(ITEMS, D)))
    with pytest.raises(BundleError, match="expected 29 items, as many as there are item vectors"):
        run("--family", "two-tower", "--item-vectors", "vectors.npy")
    Path("bundle").mkdir()
    Path("bundle/notes").write_text("")
    np.save("vectors.npy", np.random.default_rng(0).normal(size=(ITEMS + 1, D)))
    with pytest.raises(BundleError, match="a new folder, got one with files"):
        run("--family", "two-tower", "--item-vectors", "vectors.npy")


def python(*lines: str) -> str:
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_worker_never_imports_pytorch() -> None:
    loaded = python(
        "import sys, stream.cli, stream.agents.explain, stream.explain.pipeline, models.check, models.importing",
        "print([name for name in sys.modules if name == 'torch' or name.startswith('models.adapters')])",
    )
    assert loaded.strip() == "[]"


@pytest.mark.slow
def test_without_pytorch_graphs_are_imported_and_modules_are_refused(folder: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(ITEMS + 1, D)).astype(np.float32)
    vectors[0] = 0
    np.save("vectors.npy", vectors)
    Path("graph.onnx").write_bytes(mean_graph(vectors, vectors[1]))
    lines = [
        "import sys",
        "class Lacking:",
        "    def find_spec(self, name, path, target=None):",
        "        if name == 'torch': raise ModuleNotFoundError('No module named torch', name='torch')",
        "sys.meta_path.insert(0, Lacking())",
        "from typer.testing import CliRunner",
        "from stream.cli import app",
        "given = ['models', 'import', '--catalog', 'films.csv', '--item-vectors', 'vectors.npy', '--out']",
        "done = CliRunner().invoke(app, [*given, 'a', '--onnx', 'graph.onnx', '--max-length', '9'])",
        "print(done.exit_code, done.exception)",
        "print(CliRunner().invoke(app, [*given, 'b', '--family', 'two-tower']).exception)",
    ]
    graph, module = python(*lines).splitlines()
    assert graph == "0 None"
    assert "needs the extra train, and there is no module torch: in the source folder, make setup-dev" in module
