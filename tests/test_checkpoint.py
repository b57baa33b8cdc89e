"""Killed and begun again: the same bits; of other data or settings: refused."""

import os
import signal
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.inference import solving
from robusta_prob.inference.journal import FORMAT
from robusta_prob.simulate import low_rank, toy

ROWS = 128  # several blocks, so that passes with many updates are among what is saved


class KilledError(Exception):
    """What a test raises in the middle of a fit."""


def _data():
    return toy(600, 60, seed=0).data


def _fit(data, checkpoint=None, **how):
    how = {"batch_rows": ROWS} | how
    return rp.fit(data, 5, checkpoint=checkpoint and rp.Checkpoint(checkpoint, seconds=0.0), **how)


def _killer(after):
    seen = 0

    def callback(line):
        nonlocal seen
        seen += 1
        if seen > after:
            raise KilledError

    return callback


def _assert_same(one, other):
    for name in ("basis", "coefficients", "coefficient_covariance", "basis_covariance", "fingerprints"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.noise == other.noise and one.loss == other.loss
    assert one.status == other.status and dict(one.config) == dict(other.config)
    assert [line[:1] + line[2:] for line in one.history] == [line[:1] + line[2:] for line in other.history]


def test_a_fit_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path):
    """Every attempt dies after four passes of its own; those before are not done again."""
    data, path = _data(), tmp_path / "fit.checkpoint"
    whole, done, attempts = _fit(data), [], 0
    step = solving.Problem.step

    def counted(self, state, blocks, robustness, epoch, stage, *rest, **how):
        if stage in ("fit", "restarted") and rest == ():
            done.append(epoch)
        return step(self, state, blocks, robustness, epoch, stage, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solving.Problem, "step", counted)
        while True:
            attempts += 1
            try:
                resumed = _fit(data, path, callback=_killer(4 * attempts))
                break
            except KilledError:
                assert path.exists() and attempts < 30
    assert attempts > 3
    assert done == sorted(set(done)), "a pass was made twice"
    _assert_same(whole, resumed)
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left
    done.clear()
    _assert_same(whole, _fit(data, path))  # of a fit that has ended: its result, without a pass of its own


def test_a_killed_process_resumes_from_disk(tmp_path):
    """From a file that stays on disk, by the command of an impatient machine."""
    rp.write(_data(), tmp_path / "data.h5")
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, sys
            import robusta_prob as rp
            data = rp.read("data.h5", in_memory=False)
            last, seen = int(sys.argv[1]), 0
            def callback(line):
                global seen
                seen += 1
                if seen == last:
                    os.kill(os.getpid(), {int(signal.SIGKILL)})
            fit = rp.fit(
                data, 5, batch_rows={ROWS}, checkpoint=rp.Checkpoint("fit.checkpoint", 0.0), callback=callback
            )
            rp.save(fit, "fit.h5")
            """
        )
    )
    for last in (12, 0):
        run = subprocess.run(
            [sys.executable, script, str(last)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
            check=False,
        )
        assert run.returncode == (-signal.SIGKILL if last else 0)
    _assert_same(_fit(rp.read(tmp_path / "data.h5", in_memory=False)), rp.load(tmp_path / "fit.h5"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tol": 0.02}, "tol '0.01', now '0.02'"),
        ({"key": 3}, "seed '0', now '3'"),
        ({"noise": rp.Noise(nu=4.0)}, "noise"),
        ({"prior": rp.Prior.flat()}, "prior"),
        ({"max_epochs": 20}, "max_epochs '3', now '20'"),
        ({"batch_rows": 256}, "batch_rows '128', now '256'"),
    ],
)
def test_other_settings_are_refused_by_name(begun, change, named):
    data, path = begun
    with pytest.raises(ValueError, match="is of another fit") as error:
        _fit(data, path, **{"max_epochs": 3} | change)
    assert named in str(error.value)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Data, and the checkpoint of three passes over them."""
    data, path = _data(), tmp_path_factory.mktemp("checkpoint") / "fit.checkpoint"
    _fit(data, path, max_epochs=3)
    return data, path


def test_other_data_are_refused(begun):
    data, path = begun
    with pytest.raises(ValueError, match="data: cells"):
        _fit(rp.dataset(1.01 * data.flux, data.ivar), path, max_epochs=3)
    with pytest.raises(ValueError, match="data: objects 600, now 599"):
        _fit(data.take(np.arange(599)), path, max_epochs=3)


def test_what_is_no_checkpoint_is_refused_before_anything_is_done(tmp_path, begun):
    data, path = begun
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        _fit(data, tmp_path / "nowhere" / "fit.checkpoint")
    rp.save(_fit(data, max_epochs=3), tmp_path / "fit.h5")
    with pytest.raises(ValueError, match="no checkpoint"):
        _fit(data, tmp_path / "fit.h5")
    assert rp.load(tmp_path / "fit.h5").rank == 5  # and is not touched
    whole = path.read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        _fit(data, tmp_path / "cut")
    with pytest.raises(ValueError, match="engine='em'"):
        rp.fit(low_rank(50, 20, 2, seed=0).data, 2, engine="svi", checkpoint=tmp_path / "svi")
    with pytest.raises(ValueError, match="seconds must be at least 0"):
        rp.fit(data, 5, checkpoint=rp.Checkpoint(tmp_path / "x", seconds=-1.0))


def test_another_machine_is_told(tmp_path, begun):
    data, path = begun
    other = tmp_path / "fit.checkpoint"
    other.write_bytes(path.read_bytes())
    with h5py.File(other, "r+") as file:
        assert file.attrs["format"] == FORMAT
        file.attrs["machine"] = file.attrs["machine"].replace('"numpy": "', '"numpy": "0.')
    with pytest.warns(rp.DataWarning, match="numpy '0.*to rounding only"):
        _fit(data, other, max_epochs=3)
