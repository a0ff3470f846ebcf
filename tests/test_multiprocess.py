"Kernels, kernel states and products of 2 and of 4 processes, with 2 devices each, are those of one process"
import importlib.util, os, subprocess, sys
from pathlib import Path

import numpy as np, pytest

from neural_tangents_nb.hosts import free_port

PROGRAM = Path(__file__).parent/'on_hosts.py'
HOSTS = [sys.executable, '-m', 'neural_tangents_nb.hosts']


@pytest.fixture(scope='module')
def alone():
    spec = importlib.util.spec_from_file_location('on_hosts', PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {n: np.asarray(k) for n, k in module.results().items()}


def agree(path, alone, processes):
    with np.load(path) as f: got = dict(f)
    assert tuple(got.pop(n) for n in ('processes', 'devices', 'refused', 'placed', 'solved')) == (processes, 2*processes, True, True, True)
    assert got.keys() == alone.keys()
    for n, k in alone.items(): np.testing.assert_allclose(got[n], k, rtol=1e-12, atol=1e-12, err_msg=n)


@pytest.mark.full
def test_four_processes(tmp_path, alone):
    "Started by hand on one machine"
    subprocess.run([*HOSTS, '--local', '4', '--devices', '2', str(PROGRAM), str(tmp_path/'out.npz')], check=True, timeout=240)
    agree(tmp_path/'out.npz', alone, 4)


def test_slurm(tmp_path, alone):
    "Two processes as `srun` starts them, which tells them who they are in environment variables"
    job = 4096*7 + free_port() % 4096              # JAX takes the port from the number of the job
    env = lambda rank: os.environ | {n: str(v) for n, v in dict(
        SLURM_JOB_ID=job, SLURM_STEP_NODELIST='localhost', SLURM_NTASKS=2, SLURM_PROCID=rank, SLURM_LOCALID=rank).items()}
    command = [*HOSTS, '--devices', '2', str(PROGRAM), str(tmp_path/'out.npz')]
    running = [subprocess.Popen(command, env=env(rank)) for rank in range(2)]
    try: assert [p.wait(240) for p in running] == [0, 0]
    finally:
        for p in running: p.kill()
    agree(tmp_path/'out.npz', alone, 2)
