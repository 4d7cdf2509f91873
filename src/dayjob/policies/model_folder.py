"""What a model's folder holds, looked at before it is opened, so that what cannot be opened is told with its remedy.

Pickles and programs in a folder are never opened: they are told apart by their names and by ``config.json``.
"""

import json
from pathlib import Path

from transformers import CONFIG_MAPPING
from transformers import __version__ as transformers_version
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from dayjob.endings import Invalid
from dayjob.records import Json

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
CONVERT = 'AutoModelForCausalLM.from_pretrained("{folder}").save_pretrained("{folder}")'


def read_config(folder: Path) -> Json:
    """``config.json``, empty where there is none. Raises Invalid where it is no JSON object."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Invalid(
            f"{path} is broken ({first_line(error)}): copy it again from the model's maker, or write the folder anew "
            "with save_pretrained",
            param="base",
        ) from error
    if not isinstance(found, dict):
        raise Invalid(f"{path} holds no JSON object: copy it again from the model's maker", param="base")
    return found


def check_model(folder: Path) -> None:
    """Raises Invalid for a folder whose model is of no kind that can be opened, or that holds no safetensors."""
    config = read_config(folder)
    kind = config.get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        program = " (a program that its folder brings is never opened)" if "auto_map" in config else ""
        raise Invalid(
            f"{folder} is a model of type {str(kind)!r}, which transformers {transformers_version} does not know"
            f"{program}: pip install -U transformers if it is newer than that, or serve a model of a known type",
            param="base",
        )
    if kind is not None and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise Invalid(
            f"{folder} is a model of type {kind!r}, which writes no text: serve a causal language model", param="base"
        )
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise Invalid(
            f"{folder} holds its weights as a pickle ({pickles[0]}), and pickles are not opened, as they are programs: "
            "convert it to safetensors where you trust whoever made it, in Python with transformers: "
            f"{CONVERT.format(folder=folder)}",
            param="base",
        )
    raise Invalid(
        f"{folder} holds no weights in safetensors: save them there with save_pretrained, or name a model that has "
        "them (pickles are not opened)",
        param="base",
    )


def first_line(error: Exception) -> str:
    """What an error says first, or its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
