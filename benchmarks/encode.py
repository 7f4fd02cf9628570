"""How fast are sentences encoded, and in how much memory, by the fused head and by plain sentence-transformers?

    python benchmarks/encode.py [--sentences FILE] [--rounds 5]

encodes the same sentences with each engine in turn, in one run (see ``harness.py``), together and one at a time, checks
that all give the same vectors, measures the head alone against plain matrix products of its shape, and writes
``results/encode.json`` and ``results/encode.svg`` (for the plot: ``pip install matplotlib``). The limit of the products
is the rate at which the model's matrix products alone would encode the sentences: those of the layers in the engine's
precision, those of the head in int8, by the fastest of torch's products of their shapes on this machine.

With ``--before``, a checkout of an earlier version (see ``conditions.py``), its fused engines take turns, too.

The OpenVINO backend of sentence-transformers needs an older transformers than this package is tested with. With
``--backend-python``, the interpreter of an environment of its own (with ``sentence-transformers[openvino] nncf onnx
onnxscript onnxruntime``), it takes its turns, too: as it is (in bfloat16 where the processor has that), and with 8-bit
integers (nncf, calibrated with a hundred of the sentences). So does ONNX Runtime, which packages such as fastembed run
SPLADE with: the model with its pooling in one graph, in float32 and with 8-bit integers (``quantize_dynamic``).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

STOCK, OPENVINO, ONNX = "stock", "stock, OpenVINO", "ONNX Runtime"
IN_FLOAT32 = (STOCK, "fused", "fused, before", ONNX)
BACKENDS = (OPENVINO, f"{OPENVINO} int8", ONNX, f"{ONNX} int8")
ENGINES = (STOCK, "stock, bfloat16", "fused", "fused, bfloat16")
_CALIBRATION = 100  # sentences
_ALONE = 50  # sentences a round that are encoded one at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=Path, help="One a line. Default: the embedded sample's collection.")
    parser.add_argument("--model", default="tiny")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=2,
        metavar=("LAYERS", "HIDDEN"),
        help="Instead of a model: a BERT of this shape with random weights, which takes as long as any other.",
    )
    parser.add_argument("--count", type=int, default=3000, help="Sentences, drawn at random.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend-python", type=Path)
    parser.add_argument("--before", type=Path, help="Checkout of an earlier version.")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.model, arguments.sentences, arguments.output)
        return

    from sparse_sts_index import read_corpus
    from sparse_sts_index.encoding.bundled import tiny_folder

    sentences = [document.text for document in read_corpus(str(arguments.sentences or "sample"))]
    sentences = random.Random(0).sample(sorted(set(sentences)), min(arguments.count, len(set(sentences))))
    model = str(tiny_folder()) if arguments.model == "tiny" else arguments.model
    engines = dict.fromkeys(ENGINES, sys.executable)
    if arguments.backend_python:
        engines |= dict.fromkeys(BACKENDS, str(arguments.backend_python))
    if arguments.before:
        engines |= {f"{name}, before": sys.executable for name in ENGINES if name.startswith("fused")}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.shape:
            model = random_bert(*arguments.shape, model, f"{folder}/model")
        file = Path(folder) / "sentences.txt"
        file.write_text("\n".join(" ".join(sentence.split()) for sentence in sentences), encoding="utf-8")
        commands = {
            name: [
                *(harness.of_checkout(arguments.before) if name.endswith("before") else [python]),
                *(__file__, "--worker", name, "--model", model, "--sentences", str(file)),
                *("--output", f"{folder}/{number}.npz"),
            ]
            for number, (name, python) in enumerate(engines.items())
        }
        answers = harness.take_turns(commands, arguments.rounds)
        vectors = [_load(Path(folder) / f"{number}.npz") for number in range(len(engines))]
        head_rates = head(model, sentences)
        limits = products_limit(model, sentences)
    title = "random {}x{} BERT".format(*arguments.shape) if arguments.shape else arguments.model
    file_name = "encode-{}x{}".format(*arguments.shape) if arguments.shape else "encode"
    report: dict[str, Any] = {
        "model": title,
        "sentences": len(sentences),
        "machine": harness.machine(),
        "unit": "sentences/s",
        "engines": {name: harness.summarize(answers[name], "sentences_per_second") for name in engines},
        "head": head_rates,
        "limit of the products": limits,
        "active_dims": vectors[0].nnz / len(sentences),
    }
    for (name, engine), found in zip(report["engines"].items(), vectors, strict=True):
        engine["times_stock"] = engine["median"] / report["engines"][STOCK]["median"]
        engine["share_of_limit"] = engine["median"] / limits["float32" if name in IN_FLOAT32 else "bfloat16"]
        engine["alone_ms"] = {
            f"p{percent}": float(np.percentile([ms for answer in answers[name][1:] for ms in answer["alone"]], percent))
            for percent in (50, 99)
        }
        engine["largest_weight_difference"] = float(np.abs((found - vectors[0]).tocoo().data).max(initial=0))
        engine["least_cosine_with_stock"] = float(np.asarray(found.multiply(vectors[0]).sum(axis=1)).min())
        print(
            f"{name:<24} {engine['median']:7.0f}/s  x {engine['times_stock']:5.2f}  {engine['share_of_limit']:4.0%}  "
            f"alone {engine['alone_ms']['p50']:6.2f}, p99 {engine['alone_ms']['p99']:6.2f} ms  "
            f"loaded {engine['loaded_mib']:5.0f} MiB, peak {engine['peak_mib']:5.0f} MiB  "
            f"weights differ by {engine['largest_weight_difference']:.1e}, "
            f"cosine {engine['least_cosine_with_stock']:.6f}"
        )
    for name, value in report["head"].items():
        print(f"{name}: {value:,.1f}" if isinstance(value, float) else f"{name}: {value}")
    print("wrote", harness.write(arguments.results / f"{file_name}.json", report))
    plot = f"Encoding with {title}, {len(sentences):,} sentences"
    path = arguments.results / f"{file_name}.svg"
    print("wrote", harness.bars(path, plot, "sentences/s", report["engines"], "median"))


def random_bert(layers: int, hidden: int, tokenizer: str, folder: str) -> str:
    """A model of random weights, with a bias that leaves some tens of terms active."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.get_output_embeddings().bias.fill_(-3.5 * 0.02 * hidden**0.5)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def work(name: str, model: str, file: Path, output: Path) -> None:
    """One engine."""
    sentences = file.read_text(encoding="utf-8").split("\n")
    if name.startswith("fused"):
        from sparse_sts_index import SparseStsEncoder

        ours = SparseStsEncoder.load(model, precision="bfloat16" if "bfloat16" in name else "float32")
        encode = ours.encode
    elif name.startswith(ONNX):
        encode = onnx_encoder(model, int8="int8" in name)
    else:
        from sentence_transformers import SparseEncoder

        options: dict[str, Any] = {"backend": "openvino"} if name.startswith(OPENVINO) else {}
        if "bfloat16" in name:
            options = {"model_kwargs": {"dtype": torch.bfloat16}}
        stock = SparseEncoder(model, **options)
        if name == f"{OPENVINO} int8":
            quantize_openvino(stock, sentences[:_CALIBRATION])

        def encode(sentences: list[str]) -> Any:
            return stock.encode(sentences, batch_size=32)

    def round_() -> dict[str, Any]:
        start = time.perf_counter()
        result = encode(sentences)
        seconds = time.perf_counter() - start
        alone = []
        for sentence in sentences[:_ALONE]:
            begin = time.perf_counter()
            encode([sentence])
            alone.append((time.perf_counter() - begin) * 1e3)
        if not output.exists():
            _save(output, result)
        return {"seconds": seconds, "sentences_per_second": len(sentences) / seconds, "alone": alone}

    harness.serve(round_)


def quantize_openvino(model: Any, sentences: list[str]) -> None:
    """Quantize weights and activations in place, as ``export_static_quantized_openvino_model`` does."""
    import nncf

    inner = model[0].auto_model
    names = [each.get_any_name() for each in inner.model.inputs]

    def features(sentence: str) -> dict[str, Any]:
        return {name: value.numpy() for name, value in model.preprocess([sentence]).items() if name in names}

    data = nncf.Dataset(sentences, features)
    inner.model = nncf.quantize(inner.model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(sentences))
    inner.request = None
    inner.compile()


def onnx_encoder(model: str, *, int8: bool) -> Any:
    """Return a function that encodes with ONNX Runtime, in batches of 32 of similar length."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from scipy import sparse
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    class Splade(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlm = AutoModelForMaskedLM.from_pretrained(model).eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits = self.mlm(input_ids=input_ids, attention_mask=attention_mask).logits
            return (torch.log1p(torch.relu(logits)) * attention_mask.unsqueeze(-1)).amax(1)

    tokenizer = AutoTokenizer.from_pretrained(model)
    example = tokenizer(["a cat", "a cat sleeps"], padding=True, return_tensors="pt")
    axes = {0: torch.export.Dim("sentences", min=1, max=4096), 1: torch.export.Dim("tokens", min=2, max=512)}
    names = ["input_ids", "attention_mask"]
    with tempfile.TemporaryDirectory() as folder:
        file, small = f"{folder}/splade.onnx", f"{folder}/splade-int8.onnx"
        inputs = tuple(example[name] for name in names)
        torch.onnx.export(Splade(), inputs, file, dynamo=True, dynamic_shapes=(axes, axes), input_names=names)
        if int8:
            quantize_dynamic(file, small, weight_type=QuantType.QInt8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(small if int8 else file, options, providers=["CPUExecutionProvider"])

    def encode(sentences: list[str]) -> Any:
        order = sorted(range(len(sentences)), key=lambda row: -len(sentences[row]))
        parts = []
        for start in range(0, len(order), 32):
            some = tokenizer([sentences[row] for row in order[start : start + 32]], padding=True, return_tensors="np")
            (weights,) = session.run(None, {name: some[name].astype(np.int64) for name in names})
            parts.append(sparse.csr_array(weights))
        vectors = sparse.vstack(parts).tocsr()[np.argsort(order)]
        return sparse.diags_array(1 / sparse.linalg.norm(vectors, axis=1)) @ vectors

    return encode


def _save(path: Path, vectors: Any) -> None:
    from scipy import sparse

    if isinstance(vectors, torch.Tensor):
        coo = vectors.coalesce().float()
        vectors = sparse.csr_array((coo.values().numpy(), coo.indices().numpy()), shape=tuple(coo.shape))
        vectors = sparse.diags_array(1 / sparse.linalg.norm(vectors, axis=1)) @ vectors
    sparse.save_npz(path, sparse.csr_array(vectors))


def _load(path: Path) -> Any:
    from scipy import sparse

    return sparse.load_npz(path).astype(np.float64)


@torch.inference_mode()
def products_limit(model: str, sentences: list[str]) -> dict[str, float]:
    """Return the sentences a second that the matrix products alone allow, by the precision of the layers."""
    from sparse_sts_index import SparseStsEncoder
    from sparse_sts_index.encoding.packed_layers import FAMILIES

    encoder = SparseStsEncoder.load(model, precision="float32")
    mlm: Any = encoder.model.transformers_model
    family = FAMILIES[mlm.config.model_type]
    tokens = sum(sum(batch.lengths) for _, batch in encoder.tokenize(sentences).batches) / len(sentences)
    shapes = [
        tuple(weight.shape) for name, weight in mlm.named_parameters() if weight.ndim == 2 and "embeddings" not in name
        and not name.startswith(family.decoder)
    ]  # fmt: skip
    decoder = tuple(mlm.get_output_embeddings().weight.shape)
    head_seconds = fastest(decoder, torch.int8)
    return {
        precision: 1 / (tokens * (head_seconds + sum(seconds[shape] for shape in shapes)))
        for precision in ("float32", "bfloat16")
        if (seconds := {shape: fastest(shape, getattr(torch, precision)) for shape in set(shapes)})
    }


def fastest(shape: tuple[int, ...], dtype: torch.dtype) -> float:
    """Return the seconds that a product with a matrix takes per row, by the fastest of torch's products."""
    rows = 1024
    calls: list[Any]
    if dtype == torch.int8:
        left, right = (torch.randint(-127, 127, size, dtype=dtype) for size in ((rows, shape[1]), shape))
        some = right[:2048]
        int_mm: Any = torch._int_mm
        calls, parts = [lambda: int_mm(left, some.T)], shape[0] / len(some)
    else:
        left, right, parts = torch.randn(rows, shape[1]).to(dtype), torch.randn(shape).to(dtype), 1.0
        onednn: Any = torch.ops.mkldnn
        packed = onednn._reorder_linear_weight(right)
        calls = [
            lambda: torch.nn.functional.linear(left, right),
            lambda: onednn._linear_pointwise(left, packed, None, "none", [], "none"),
        ]
    best = []
    for call in calls:
        seconds = []
        for _ in range(12):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        best.append(statistics.median(seconds))
    return min(best) * parts / rows


@torch.inference_mode()
def head(model: str, sentences: list[str]) -> dict[str, Any]:
    """The head alone on one batch, beside plain products of the shape of all its logits, in GFLOP/s of those logits."""
    from sparse_sts_index import SparseStsEncoder
    from sparse_sts_index.encoding.splade_head import DecoderScreen, max_logits, screen_dtype

    encoder = SparseStsEncoder.load(model, precision="float32")
    batches = encoder.tokenize(sorted(sentences, key=len)[len(sentences) // 3 :][:512]).batches
    packed = max((batch for _, batch in batches), key=lambda batch: len(batch.ids))
    mlm: Any = encoder.model.transformers_model
    decoder = mlm.get_output_embeddings()
    weight, bias = decoder.weight, decoder.bias
    lengths = packed.lengths
    ids = torch.nn.utils.rnn.pad_sequence(list(packed.ids.split(lengths)), batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor(lengths).unsqueeze(1)
    caught: list[torch.Tensor] = []
    hook = decoder.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    mlm(input_ids=ids, attention_mask=mask.long())
    hook.remove()
    hidden = caught[0][mask].contiguous()
    screen = DecoderScreen()
    tokens, size = hidden.shape
    flops = 2 * tokens * size * len(weight)

    def stock() -> torch.Tensor:
        logits = torch.nn.functional.linear(caught[0], weight, bias)
        return (logits * mask.unsqueeze(-1)).relu_().log1p_().max(dim=1)[0]

    def product(dtype: torch.dtype) -> Any:
        """All logits, 2,048 terms at a time into the same memory, which is faster than all at once."""
        low, high = hidden.to(dtype), weight.to(dtype)
        if dtype == torch.int8:
            low, high = ((x * (127 / x.abs().max())).round().to(dtype) for x in (hidden, weight))
        multiply: Any = torch._int_mm if dtype == torch.int8 else torch.mm
        out = torch.empty(tokens * 2048, dtype=torch.int32 if dtype == torch.int8 else dtype)

        def run() -> None:
            for rows in high.split(2048):
                multiply(low, rows.T, out=out[: tokens * len(rows)].view(tokens, len(rows)))

        return run

    timed = {
        "stock head": stock,
        "fused head": lambda: max_logits(hidden, lengths, weight, bias, screen=screen),
        "plain product, float32": product(torch.float32),
        "plain product, bfloat16": product(torch.bfloat16),
    }
    if screen_dtype(weight.device) == torch.int8:
        timed["plain product, int8"] = product(torch.int8)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(31):
        for name, function in timed.items():
            start = time.perf_counter()
            function()
            if number:
                seconds[name].append(time.perf_counter() - start)
    rates = {f"{name}, GFLOP/s": flops / statistics.median(values) / 1e9 for name, values in seconds.items()}
    return {
        "shape": f"{len(lengths)} sentences, {tokens} tokens, {size} x {len(weight)}",
        "screen": str(screen_dtype(weight.device)),
        **rates,
    }


if __name__ == "__main__":
    main()
