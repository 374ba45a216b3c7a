"""python -m converters.configs: every model's tracked config.pbtxt, from the declarations."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from converters import command
from converters.conversion.publish import CONFIG_NAME, writing
from harness.errors import ConversionError
from harness.machine.command import OneLineParser
from harness.machine.files import whole
from harness.machine.paths import MODEL_REPOSITORY
from harness.models import MODELS
from harness.models.model_config import model_config, to_text

logger = logging.getLogger(__name__)


def expected_configs() -> dict[str, str]:
    """The text of each entry's config.pbtxt, by the entry's name."""
    return {
        spec.entry_name(platform): to_text(model_config(spec.entry_name(platform), variant))
        for spec in MODELS.values()
        for platform, variant in spec.variants.items()
    }


def differing(repository: Path) -> list[Path]:
    """The config.pbtxt files that are missing, or not what the declarations say."""
    paths = {repository / entry / CONFIG_NAME: text for entry, text in expected_configs().items()}
    return [
        path
        for path, text in paths.items()
        if not path.is_file() or path.read_bytes() != text.encode("utf-8")
    ]


def write(repository: Path) -> list[Path]:
    """Write those that differ; an entry's other files are left alone.

    Raises:
        ConversionError: the repository cannot be written.
    """
    texts = expected_configs()
    changed = differing(repository)
    with writing(repository):
        for path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as partial:
                partial.write_text(texts[path.parent.name], encoding="utf-8")
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = OneLineParser(prog="python -m converters.configs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which differ; exit 2 if any does")
    parser.add_argument("--repository", type=Path, default=MODEL_REPOSITORY, metavar="DIR")

    def body() -> None:
        options = parser.parse_args(arguments)
        changed = differing(options.repository) if options.check else write(options.repository)
        for path in changed:
            logger.info("%s %s", "differs:" if options.check else "written:", path)
        if options.check and changed:
            raise ConversionError("run `python -m converters.configs` and commit what it writes")

    return command.run(body)


if __name__ == "__main__":
    sys.exit(main())
