"""Opening the base models of the configuration: from a folder, or from the Hugging Face hub into its cache.

A base opens whole or not at all, before the server answers anybody: a model that is missing, broken, not there in full,
or too short for its settings stops the start with what to do about it.
"""

import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dayjob.config import Base
from dayjob.endings import Invalid
from dayjob.journal.versions import find_files
from dayjob.policies.engine_protocol import VersionRef
from dayjob.serve.models import OpenBase

if TYPE_CHECKING:
    from dayjob.policies.tokens import Tokens

NEEDED = ("torch", "transformers")
NEEDS_LANGUAGE = "a language policy needs {missing}, which is not installed: pip install 'dayjob[language]'"
# What a model is made of; never a pickle, never a program.
FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
HUBS = ("huggingface.co", "hf.co")
log = logging.getLogger("dayjob.serve")


def open_bases(bases: tuple[Base, ...]) -> dict[str, OpenBase]:
    """Every base, open. Raises Invalid, naming the base and the remedy, for the first that cannot be."""
    for package in NEEDED if bases else ():
        if importlib.util.find_spec(package) is None:
            raise Invalid(NEEDS_LANGUAGE.format(missing=package), param="bases")
    return {base.name: open_base(base) for base in bases}


def open_base(base: Base) -> OpenBase:
    """One base on an engine of its own. Raises Invalid as `open_bases` does."""
    try:
        folder = model_folder(base.path)  # first: what is not there is told before torch is read
        return _opened(base, folder)
    except Invalid as error:
        raise Invalid(f"bases.{base.name}: {error}", param="bases", code=error.code) from error


def _opened(base: Base, folder: Path) -> OpenBase:
    if base.engine == "vllm":
        return _opened_elsewhere(base, folder)
    import torch
    from transformers.utils.logging import disable_progress_bar

    from dayjob.policies.engine_jobs import EngineLimits
    from dayjob.policies.engine_transformers import TransformersEngine, load_model, longest_context

    if base.device != "cpu" and not torch.cuda.is_available():
        raise Invalid(f'this machine has no {base.device}: set device = "cpu"')
    disable_progress_bar()
    tokens = _tokens(base, folder)
    model = load_model(folder, dtype=getattr(torch, base.dtype), device=base.device)
    context_tokens = min(base.context_tokens, longest_context(model.config) or base.context_tokens)
    engine = TransformersEngine(model, tokens, limits=EngineLimits(slots=base.slots, context_tokens=context_tokens))
    log.info("base %s is open: %s", base.name, folder)
    return OpenBase(name=base.name, engine=engine, tokens=tokens, context_tokens=context_tokens)


def _opened_elsewhere(base: Base, folder: Path) -> OpenBase:
    """A base whose answers a vLLM server writes. Its tokenizer is read here."""
    from dayjob.policies.engine_vllm import VllmEngine, longest_context

    key = os.environ.get(base.key_env) if base.key_env else None
    if base.key_env and not key:
        raise Invalid(f"key_env names {base.key_env}, which is not in the environment: set it, or leave key_env out")
    tokens = _tokens(base, folder)
    context_tokens = min(base.context_tokens, longest_context(base.url, base.name, key=key) or base.context_tokens)
    engine = VllmEngine(base.url, base.name, key=key, end_ids=sorted(tokens.end_ids))
    log.info("base %s is served by vLLM at %s", base.name, base.url)
    return OpenBase(name=base.name, engine=engine, tokens=tokens, context_tokens=context_tokens)


def open_tokens(base: Base) -> "Tokens":
    """The tokenizer of one base alone. Raises Invalid as `open_bases` does."""
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise Invalid(NEEDS_LANGUAGE.format(missing=package), param="bases")
    try:
        return _tokens(base, model_folder(base.path))
    except Invalid as error:
        raise Invalid(f"bases.{base.name}: {error}", param="bases", code=error.code) from error


def find_base(bases: tuple[Base, ...], name: str) -> Path:
    """The folder of a base by its name, for whoever learns. Raises Invalid where it is not configured or not there."""
    base = next((one for one in bases if one.name == name), None)
    if base is None:
        raise Invalid(
            f"the base model {name!r} is not in this learner's configuration: add [bases.{name}] to dayjob.toml, then "
            "ask again",
            param="bases",
        )
    try:
        return model_folder(base.path)
    except Invalid as error:
        raise Invalid(f"bases.{name}: {error}", param="bases", code=error.code) from error


def _tokens(base: Base, folder: Path) -> "Tokens":
    from dayjob.policies.tokens import Tokens

    if not any((folder / name).exists() for name in TOKENIZERS):  # else an empty one would be made up
        raise Invalid(f"{folder} holds no tokenizer: save it there with tokenizer.save_pretrained")
    tokens = Tokens.open(folder, template=base.template)
    fault = tokens.template_fault()
    if fault:
        raise Invalid(f"{fault} (the model is in {folder})")
    return tokens


def model_folder(path: str) -> Path:
    """Where a model lies: in the folder of an absolute path, else on the Hugging Face hub, from which it is copied into
    the cache. Raises Invalid where it cannot be had."""
    if Path(path).is_absolute():
        if not Path(path).exists():
            raise Invalid(
                f"there is no folder {path}: check the path (save_pretrained writes one); a model on the Hugging "
                f"Face hub is named with its owner, OWNER/{Path(path).name}"
            )
        if not (Path(path) / "config.json").is_file():
            raise Invalid(
                f"{path} is no model's folder (it has no config.json): name one that save_pretrained wrote, or "
                "OWNER/NAME of a model on the hub"
            )
        return Path(path)
    _check_id(path)
    import httpx
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=FILES))
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = str(error).strip().splitlines()
        raise Invalid(
            f"there is no folder {path}, and the model of that name could not be had from the Hugging Face hub "
            f"({reason[0] if reason else type(error).__name__}): check the name and the network (HF_TOKEN for a gated "
            "model), or download it elsewhere with `hf download` and name its folder"
        ) from error


def _check_id(path: str) -> None:
    """Raises Invalid for an address, before the hub is asked for a model of that name."""
    address = urlsplit(path)
    if not address.netloc:
        return
    parts = [part for part in address.path.split("/") if part][:2]
    of_hub = address.netloc.removeprefix("www.") in HUBS and len(parts) == 2
    wanted = "/".join(parts) if of_hub else "OWNER/NAME of a model on the Hugging Face hub, or the path of a folder"
    raise Invalid(f"path is the address {path}, and addresses are not followed: write {wanted}")


def find_adapter(root: Path, tenant: str, policy: str, version: str, digest: str) -> VersionRef:
    """Where a version of a language policy lies, as its engine knows it. Raises NotFound or Damaged."""
    folder, files = find_files(root, tenant, policy, version, digest=digest)
    return VersionRef(name=f"{tenant}/{policy}/{version}", digest=digest, folder=folder, files=files)
