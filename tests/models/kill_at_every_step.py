"""Does one change to a store over and over, killed with SIGKILL before its 1st, 2nd, ... call to the file system.

python kill_at_every_step.py CHANGE FOLDER prints, as JSON, how the store reads before the change, after it, and after
each kill; and after each kill followed by one more registration. It runs in a process of its own because it forks.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelserve.models.store import ModelStore, Registration

# Audit events (and os.fsync, which has none) after which the disk may have changed; each is told before it happens.
CALLS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "fcntl.flock", "fsync"}
MOST_STEPS = 1000
MODEL = "[inputs.x]\nshape = [-1, 2]\n"

Snapshot = dict[str, Any]


def prepare(folder: Path) -> ModelStore:
    """A store with m:1, which has an own file with labels; and what the changes register."""
    for name in ("first", "second"):
        (folder / name).mkdir(parents=True)
        (folder / name / "synthetic.toml").write_text(MODEL + f"# {name}\n")
        (folder / name / "labels.txt").write_text(f"{name} a\n{name} b\n")
        (folder / name / "accelserve.toml").write_text(f'labels = "labels.txt"\nthreads = {len(name)}\n')
    (folder / "plain.synthetic.toml").write_text(MODEL)
    (folder / "sample.json").write_text("[[1, 2]]")
    store = ModelStore(folder / "store")
    store.register("m", folder / "first", Registration(tags={"stage": "old"}))
    return store


def register_first(store: ModelStore, folder: Path) -> None:
    store.register("new", folder / "second", Registration(sample=folder / "sample.json"))


def register_next(store: ModelStore, folder: Path) -> None:
    store.register("m", folder / "second", Registration(tags={"stage": "new"}, sample=folder / "sample.json"))


def update(store: ModelStore, folder: Path) -> None:
    store.update("m", 1, {"stage": "new"}, description="better")


def delete(store: ModelStore, folder: Path) -> None:
    store.delete("m", 1)


# The name that the change is about, and the change.
CHANGES: dict[str, tuple[str, Callable[[ModelStore, Path], None]]] = {
    "register_first": ("new", register_first),
    "register_next": ("m", register_next),
    "update": ("m", update),
    "delete": ("m", delete),
}


def snapshot(store: ModelStore) -> Snapshot:
    """All that a reader sees; that the content is what the record says is checked here."""
    from accelserve.models.repository import find_models
    from accelserve.models.store.content import content_sha256, hash_files, list_content

    seen: Snapshot = {}
    for name in store.names():
        for model in store.versions(name):
            files = list_content(model.path, find_models(name, model.path))
            whole = content_sha256(files, hash_files(files, lambda _: None)) == model.sha256
            sample = model.sample.read_text() if model.sample else None
            seen[model.reference] = [whole, dict(model.tags), model.description, model.signatures, sample]
        own = store.root / name / "accelserve.toml"
        text = own.read_text() if own.exists() else None
        seen[name] = [text, (own.parent / text.split('"')[1]).read_text()] if text else None
    return seen


def leftovers(store: ModelStore) -> list[str]:
    patterns = (".accelserve/incoming/*", "*/.registry/before-*", "*/.registry/.*", "*/.*.tmp")
    return [str(path) for pattern in patterns for path in store.root.glob(pattern)]


def die_before(step: int) -> None:
    """Arm this process: it is killed before its call number `step`."""
    calls = 0

    def count(event: str, _: Any = None) -> None:
        nonlocal calls
        if event in CALLS:
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = lambda _: count("fsync")
    sys.addaudithook(count)


def killed(change: Callable[[ModelStore, Path], None], store: ModelStore, folder: Path, step: int) -> bool:
    """Whether the change was killed; False when it came to its end before the step."""
    child = os.fork()
    if child == 0:
        die_before(step)
        change(store, folder)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def main(change_name: str, folder: Path) -> None:
    os.fsync = lambda _: None  # a kill loses nothing that was written; only a power cut does, and it is not tried here
    name, change = CHANGES[change_name]
    old = prepare(folder)
    result: dict[str, Any] = {"old": snapshot(old), "kills": []}
    for step in range(1, MOST_STEPS):
        store = ModelStore(folder / f"store-{step}")
        shutil.copytree(old.root, store.root)
        if not killed(change, store, folder, step):
            result["new"] = snapshot(store)
            break
        after = snapshot(store)
        again = store.register(name, folder / "plain.synthetic.toml", Registration(tags={"stage": "again"}))
        seen = {"after": after, "again": again.reference, "then": snapshot(store), "left": leftovers(store)}
        result["kills"].append(seen)
        shutil.rmtree(store.root)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
