"""One run, written for another toolkit."""

import logging
from pathlib import Path

from nmt_ls.errors import UserError
from nmt_ls.interchange.ctranslate import export_ctranslate2
from nmt_ls.interchange.marian import export_marian
from nmt_ls.interchange.plain import export_safetensors
from nmt_ls.interchange.search import not_expressed
from nmt_ls.interchange.stablehlo import export_stablehlo
from nmt_ls.training.runs import LoadedRun

log = logging.getLogger("nmt_ls")


def export(run: LoadedRun, to: str, output: Path, quantization: str | None = None) -> None:
    """Write a run as `to` wants it: huggingface, ctranslate2, safetensors or stablehlo.

    A warning names the settings of the run's search that the first two do not have.

    Args:
      run: with the parameters that are written.
      to: the format.
      output: the folder that is made; it is there whole or not at all.
      quantization: ctranslate2: type of the weights; None for float32.

    Raises:
      UserError: the format cannot express a setting of the run, needs a package that is not
        there, or `output` is there already.
    """
    if quantization and to != "ctranslate2":
        raise UserError(f"--quantization {quantization} is for --to ctranslate2, not {to}")
    if to == "huggingface":
        export_marian(run, output)
    elif to == "ctranslate2":
        export_ctranslate2(run, output, quantization)
    elif to == "safetensors":
        export_safetensors(run, output)
    elif to == "stablehlo":
        export_stablehlo(run, output)
    else:
        raise UserError(f"--to {to}: huggingface, ctranslate2, safetensors or stablehlo")
    lost = not_expressed(run.config.decoding)
    if lost and to in ("huggingface", "ctranslate2"):
        log.warning("--to %s has no %s: it searches without", to, ", ".join(lost))
