"""The store: right answers, and none but right answers, whatever happens to the process or disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.durable import write_durably
from helpers.imageset import ImageSet
from helpers.store import Stage, Store, key_of, stage

CALLS: list[dict] = []


@stage(version=1)
def squares(config, inputs, work, loud=False):
    CALLS.append(config)
    return {"squares": torch.arange(config["n"]) ** 2}, {"n": config["n"], "pair": (1, 2.5)}


@stage(version=2)
def newer(config, inputs, work):
    return {}, {}


@pytest.fixture(autouse=True)
def _forget_calls():
    CALLS.clear()


def script(store: Path, body: str, **options) -> subprocess.Popen:
    """Another process with the store open and one stage, `slow`, that tells when it computes."""
    code = f"""
import os, sys, time, torch
from pathlib import Path
from helpers.store import Store, stage
store = Store({str(store)!r})
@stage()
def slow(config, inputs, work, pause=0.0):
    steps = work / "steps"
    done = len(steps.read_text()) if steps.exists() else 0
    for step in range(done, config["n"]):
        with open(steps, "a") as file:
            file.write("x")
        print("step", step, flush=True)
        time.sleep(pause)
    return {{"x": torch.arange(1000.0)}}, {{"n": config["n"], "found": done, "pid": os.getpid()}}
{body}
"""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_computes_once_and_then_reads_the_same_from_disk(tmp_path):
    first = Store(tmp_path).get_or_compute(squares, {"n": 4})
    again = Store(tmp_path).get_or_compute(squares, {"n": 4}, how={"loud": True})
    assert len(CALLS) == 1
    assert torch.equal(first.tensors["squares"], torch.tensor([0, 1, 4, 9]))
    assert torch.equal(again.tensors["squares"], first.tensors["squares"])
    assert first.values == again.values == {"n": 4, "pair": [1, 2.5]}
    assert again.made["stage"] == "squares" and again.made["config"] == {"n": 4}
    assert set(again.made) >= {"version", "inputs", "seconds", "date", "versions", "sha256"}
    assert not list(tmp_path.rglob("*.work"))


def test_changing_a_result_in_place_leaves_the_stored_one_as_it_was(tmp_path):
    store = Store(tmp_path)
    first = store.get_or_compute(squares, {"n": 4}).tensors["squares"]
    first += 1
    assert first.tolist() == [1, 2, 5, 10]
    assert store.find(squares, {"n": 4}).tensors["squares"].tolist() == [0, 1, 4, 9]
    shutil.rmtree(tmp_path / "squares")  # what was read outlives its file
    assert first.tolist() == [1, 2, 5, 10]


def test_key_follows_name_version_config_and_inputs(tmp_path):
    images = ImageSet(
        torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ("a",)
    )
    brighter = ImageSet(images.images + 1, images.labels, ("a",))
    result = Store(tmp_path).get_or_compute(squares, {"n": 1})
    keys = [
        key_of(squares, {"n": 1}, {}),
        key_of(squares, {"n": 2}, {}),
        key_of(newer, {"n": 1}, {}),
        key_of(stage(version=2)(squares.compute), {"n": 1}, {}),
        key_of(squares, {"n": 1}, {"train": images}),
        key_of(squares, {"n": 1}, {"train": brighter}),
        key_of(squares, {"n": 1}, {"test": images}),
        key_of(squares, {"n": 1}, {"train": result}),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(squares, {"a": 1, "b": (2,)}, {}) == key_of(squares, {"b": [2], "a": 1}, {})
    with pytest.raises(TypeError, match="may hold numbers"):
        key_of(squares, {"n": object()}, {})


def test_find_only_looks(tmp_path):
    store = Store(tmp_path / "not yet there")
    assert store.find(squares, {"n": 3}) is None
    assert not store.root.exists()
    made = store.get_or_compute(squares, {"n": 3})
    assert store.find(squares, {"n": 3}).made == made.made
    assert len(CALLS) == 1


@given(
    values=st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.floats(allow_nan=False), st.integers(), st.text(max_size=5), st.booleans()),
    )
)
def test_values_come_back_exactly(values):
    @stage()
    def give(config, inputs, work):
        shared = torch.arange(6.0).view(2, 3)
        return {"a": shared.t(), "b": shared[0], "none": torch.zeros(0, 3)}, values

    with tempfile.TemporaryDirectory() as folder:
        result = Store(folder).get_or_compute(give, {})
    assert result.values == values
    assert torch.equal(result.tensors["a"], torch.arange(6.0).view(2, 3).t())
    assert result.tensors["none"].shape == (0, 3)


@pytest.mark.parametrize("file", ["tensors.safetensors", "made.json"])
@pytest.mark.parametrize("where", [0, 0.5, 1])
def test_damaged_bytes_are_named_set_aside_and_recomputed(tmp_path, file, where):
    store = Store(tmp_path)
    good = store.get_or_compute(squares, {"n": 500})
    path = tmp_path / "squares" / good.key / file
    data = bytearray(path.read_bytes())
    data[min(int(where * len(data)), len(data) - 1)] ^= 0x15
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=good.key):
        assert store.find(squares, {"n": 500}) is None
    with pytest.warns(UserWarning, match=f"{good.key} is damaged.*computed again"):
        again = store.get_or_compute(squares, {"n": 500})
    assert len(CALLS) == 2
    assert torch.equal(again.tensors["squares"], good.tensors["squares"])
    assert (tmp_path / "squares" / f"{good.key}.damaged" / file).read_bytes() == data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.get_or_compute(squares, {"n": 500})


@pytest.mark.parametrize("damage", ["cut", "no tensors", "empty folder", "value", "other key"])
def test_incomplete_or_swapped_results_are_never_used(tmp_path, damage):
    store = Store(tmp_path)
    key = store.get_or_compute(squares, {"n": 5}).key
    folder = tmp_path / "squares" / key
    if damage == "cut":
        os.truncate(folder / "tensors.safetensors", 40)
    elif damage == "no tensors":
        (folder / "tensors.safetensors").unlink()
    elif damage == "empty folder":
        shutil.rmtree(folder)
        folder.mkdir()
    elif damage == "value":  # a number edited by hand is still valid JSON
        record = json.loads((folder / "made.json").read_text())
        record["values"]["n"] = 6
        (folder / "made.json").write_text(json.dumps(record))
    else:
        other = store.get_or_compute(squares, {"n": 6}).key
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "squares" / other, folder)
    with pytest.warns(UserWarning, match="damaged"):
        assert store.get_or_compute(squares, {"n": 5}).values["n"] == 5


def test_a_killed_stage_leaves_no_result_and_goes_on_from_its_work(tmp_path):
    call = 'result = store.get_or_compute(slow, {"n": 5}, how={"pause": PAUSE})\n'
    process = script(tmp_path, call.replace("PAUSE", "60"))
    assert process.stdout.readline() == "step 0\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.rglob("made.json"))

    # what a kill during the last write would leave: never mistaken for a result
    (work,) = tmp_path.rglob("*.work")
    (work / ".finished").mkdir()
    (work / ".finished" / "made.json").write_text("{")

    process = script(tmp_path, call.replace("PAUSE", "0") + "print(result.values, result.made)")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "'found': 1" in out and "'resumed': True" in out
    assert "step 0" not in out and "step 1" in out
    assert not list(tmp_path.rglob("*.work"))


def test_kills_at_random_moments_never_leave_a_wrong_result(tmp_path):
    body = """
for i in range(10_000):
    result = store.get_or_compute(slow, {"n": i % 3, "i": i})
    assert len(result.tensors["x"]) == 1000
    print("ready", flush=True)
"""
    processes = [script(tmp_path, body) for _ in range(3)]  # racing each other, too
    for process, delay in zip(processes, (0.003, 0.011, 0.017), strict=True):
        while "ready" not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        time.sleep(delay)
        process.kill()
        process.wait()
    records = list(tmp_path.rglob("made.json"))
    assert records
    process = script(
        tmp_path,
        f"""
import warnings
warnings.simplefilter("error")  # a damaged result would be a warning
for i in range({len(records)} + 2):
    assert store.get_or_compute(slow, {{"n": i % 3, "i": i}}).values["n"] == i % 3
""",
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_two_processes_at_once_share_one_computation(tmp_path):
    body = 'print(store.get_or_compute(slow, {"n": 2}, how={"pause": 0.5}).values["pid"])'
    pair = [script(tmp_path, body), script(tmp_path, body)]
    outputs = []
    for process in pair:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        outputs.append(out.split("\n"))
    assert sum(line.startswith("step") for lines in outputs for line in lines) == 2
    assert outputs[0][-2] == outputs[1][-2]  # both read the result of the same process


def test_an_error_in_the_stage_is_not_a_result_and_frees_the_lock(tmp_path):
    @stage()
    def moody(config, inputs, work, fail=False):
        if fail:
            raise RuntimeError("bad day")
        return {}, {"fine": True}

    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="bad day"):
        store.get_or_compute(moody, {}, how={"fail": True})
    assert store.find(moody, {}) is None
    assert store.get_or_compute(moody, {}).values == {"fine": True}


def test_a_full_disk_is_a_clear_error_and_not_a_result(tmp_path):
    body = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # files cannot grow: a disk that is full
try:
    store.get_or_compute(slow, {"n": 1})
except OSError as error:
    print(error)
"""
    out, err = script(tmp_path, body).communicate(timeout=60)
    assert f"cannot write results under {tmp_path}" in out and "COURSE_RESULTS" in out, err
    assert not list(tmp_path.rglob(f"*/{'?' * 20}/made.json"))


def test_a_read_only_folder_is_read_and_a_clear_error_when_written():
    # pytest's own temporary folder is closed to the unprivileged user that root becomes here
    root = Path(tempfile.mkdtemp())
    try:
        Store(root).get_or_compute(Stage(lambda *_: ({}, {"n": 1}), "slow", 1), {"n": 1})
        for folder in (root, root / "slow"):
            folder.chmod(0o555)
        body = """
if os.geteuid() == 0:
    os.seteuid(65534)
print("read", store.get_or_compute(slow, {"n": 1}).values["n"])
try:
    store.get_or_compute(slow, {"n": 2})
except OSError as error:
    print(error)
"""
        out, err = script(root, body).communicate(timeout=60)
        assert "read 1" in out, err
        assert f"cannot write results under {root}" in out, err
    finally:
        for folder in (root, root / "slow"):
            folder.chmod(0o755)
        shutil.rmtree(root)


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(OSError, match=f"cannot write results under {tmp_path / 'results'}"):
        Store(tmp_path / "results" / "store").get_or_compute(squares, {"n": 1})


def test_write_durably_replaces_whole_files(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_durably(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
