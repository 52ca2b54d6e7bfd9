"""What README.md and docs/ have of a run: docs/performance.md, README.md's tables, docs/growth.md."""
import pathlib
import shutil
import tempfile

import decision
import estimate


def publish(performance, root):
    """All of it or nothing: with LookupError where the run lacks what they are of, or OSError."""
    made = ("docs/growth.md", "docs/images/growth.svg", "README.md")
    with tempfile.TemporaryDirectory(prefix="cowshed-publish-") as folder:
        staged = pathlib.Path(folder)
        (staged / "docs").mkdir()
        shutil.copyfile(root / "README.md", staged / "README.md")
        decision.update(staged / "README.md", [performance])
        estimate.write(staged / "docs", [performance])
        for name in made:
            shutil.copyfile(staged / name, root / name)
    shutil.copyfile(performance, root / "docs/performance.md")
    return ["docs/performance.md", *made]
