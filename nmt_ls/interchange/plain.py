"""The parameters as they are, in one safetensors file, with all that is needed to use them."""

import json
from pathlib import Path

from nmt_ls import __version__
from nmt_ls.config_files import resolved_dict, save_config
from nmt_ls.interchange.folders import whole_folder
from nmt_ls.interchange.tensors import WEIGHTS, write_tensors
from nmt_ls.training.runs import LoadedRun


def export_safetensors(run: LoadedRun, output: Path) -> None:
    """Write `model.safetensors`, `config.yaml` and the subword files.

    The names of the tensors are those of docs/interchange.md; the file's metadata has the
    version, the checkpoint and the model's settings as JSON.

    Args:
      run: any.
      output: the folder that is made; it is there whole or not at all.

    Raises:
      UserError: `output` is there already.
    """
    with whole_folder(output, "--output") as beside:
        run.subwords.save(beside)
        save_config(run.config, beside / "config.yaml")
        write_tensors(beside / WEIGHTS, run.params, metadata_of(run))


def metadata_of(run: LoadedRun) -> dict[str, str]:
    """Text that a safetensors file of a run's parameters carries."""
    subwords = run.subwords
    sizes = {"source": subwords.source_size, "target": subwords.target_size}
    specials = {name: getattr(subwords, name) for name in ("pad", "unk", "bos", "eos")}
    return {
        "nmt_ls": __version__,
        "checkpoint": run.checkpoint,
        "model": json.dumps(resolved_dict(run.config)["model"]),
        "vocabulary": json.dumps({**sizes, **specials}),
    }
