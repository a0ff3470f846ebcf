"Starting programs on many hosts: what each process is told, what becomes of the others when one fails, what a program sees"
import os, signal, subprocess, sys, time
from pathlib import Path

import jax, pytest

from neural_tangents_nb import hosts

PYTHON = sys.executable

# What takes the place of Python in `run_local`: it writes down its arguments and its number, waits for all, and ends as the test wants.
PROCESS = """#!/bin/sh
while [ "$1" != --rank ]; do all="$all $1"; shift; done
rank=$2; shift 2
echo "$all|$*" > {folder}/$rank.part
echo $$ > {folder}/$rank.pid
mv {folder}/$rank.part {folder}/$rank.said
while [ $(ls {folder}/*.said | wc -l) -lt {count} ]; do sleep .05; done
case $rank in {cases} esac
"""


@pytest.fixture
def processes(tmp_path, monkeypatch):
    "Let `run_local` start `count` processes that end by `cases`"
    def prepare(count, cases):
        python = tmp_path/'python'
        python.write_text(PROCESS.format(folder=tmp_path, count=count, cases=cases))
        python.chmod(0o755)
        monkeypatch.setattr(sys, 'executable', str(python))
        return tmp_path
    return prepare


def alive(folder):
    running = []
    for p in folder.glob('*.pid'):
        try: os.kill(int(p.read_text()), 0); running.append(p.stem)
        except ProcessLookupError: pass
    return running


def test_each_process_is_told_who_it_is(processes):
    "One coordinator, the number of all, a rank for each, and the program with its arguments"
    folder = processes(3, '*) exit 0;;')
    assert hosts.run_local(3, ['program.py', '--rank', 'x'], devices=2) == 0
    said = [(folder/f'{rank}.said').read_text().strip().split('|') for rank in range(3)]
    assert {program for _, program in said} == {'program.py --rank x'} and len({options for options, _ in said}) == 1
    module, port = said[0][0].split(' --coordinator 127.0.0.1:')
    assert module.split() == ['-m', 'neural_tangents_nb.hosts'] and port.split()[1:] == ['--processes', '3', '--devices', '2']
    assert 1024 <= int(port.split()[0]) < 2**16
    hosts.run_local(3, ['program.py'])
    assert '--devices' not in (folder/'0.said').read_text()


@pytest.mark.parametrize('cases, status', [
    ('1) exit 3;; *) exec sleep 1000;;', 3), ('1) exit 0;; 2) exit 4;; *) exec sleep 1000;;', 4), ('0) kill -15 $$;; *) exec sleep 1000;;', 15)],
    ids=['others wait', 'one has ended', 'a signal'])
def test_one_that_fails_ends_all(processes, cases, status):
    "The exit status is its own, not that of those that are stopped, or the number of the signal if no other failed"
    folder = processes(3, cases)
    got = hosts.run_local(3, ['program.py'])
    # Of several that ended by signals, 9 is that of the stopped ones: which is reported does not matter, if it is a failure.
    assert got == status or status == 15 and got in (9, 15)
    assert alive(folder) == []


def test_a_batch_system_that_stops_the_first_stops_all(processes):
    "SIGTERM, as `timeout` and batch systems send it, leaves no process behind"
    folder = processes(2, '*) exec sleep 1000;;')
    start = 'import sys; from neural_tangents_nb import hosts; e = sys.executable; sys.executable = sys.argv[1]; hosts.main(["--local", "2", "program.py"])'
    first = subprocess.Popen([PYTHON, '-c', start, str(folder/'python')], env=os.environ | dict(PYTHONPATH=os.pathsep.join(sys.path)))
    try:
        end = time.time() + 60
        while len(list(folder.glob('*.said'))) < 2:
            assert time.time() < end and first.poll() is None
            time.sleep(.05)
        first.terminate()
        assert first.wait(60) == 143 and alive(folder) == []
    finally:
        first.kill()
        for p in folder.glob('*.pid'):
            try: os.kill(int(p.read_text()), signal.SIGKILL)
            except ProcessLookupError: pass


@pytest.fixture
def joined(monkeypatch):
    "What `join` would have been called with"
    calls = []
    monkeypatch.setattr(hosts, 'join', lambda *args: calls.append(args))
    monkeypatch.setattr(sys, 'argv', list(sys.argv))
    monkeypatch.setattr(sys, 'path', list(sys.path))
    def stop(code): raise RuntimeError(f'ended with {code}')
    monkeypatch.setattr(os, '_exit', stop)
    return calls


@pytest.mark.parametrize('options, devices', [([], None), (['--devices', '2'], 2)])
def test_local_processes(monkeypatch, options, devices):
    "The command starts as many as it is told, and ends as they did"
    calls, before = [], signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(hosts, 'run_local', lambda *args: calls.append(args) or 5)
    try:
        with pytest.raises(SystemExit) as e: hosts.main(['--local', '3', *options, 'program.py', '--local', '7'])
    finally: signal.signal(signal.SIGTERM, before)
    assert e.value.code == 5 and calls == [(3, ['program.py', '--local', '7'], devices)]


def test_a_program_sees_what_it_would_see_alone(tmp_path, joined):
    "Its arguments, its neighbours, its name; and the process has joined before"
    (tmp_path/'a_neighbour.py').write_text('here = True')
    program = tmp_path/'program.py'
    program.write_text('import sys, pathlib, a_neighbour; assert __name__ == "__main__"\npathlib.Path(sys.argv[1]).write_text("|".join(sys.argv))')
    out = str(tmp_path/'out')
    hosts.main(['--coordinator', 'host:1', '--processes', '4', '--rank', '3', '--devices', '2', str(program), out, '--rank', '7'])
    assert joined == [('host:1', 4, 3, 2)] and Path(out).read_text() == f'{program}|{out}|--rank|7'


@pytest.mark.parametrize('text, code, said', [
    ('raise ValueError("of mine")', 1, 'ValueError: of mine'), ('import sys; sys.exit(3)', 3, ''), ('import sys; sys.exit("in words")', 1, 'in words')])
def test_a_program_that_fails_ends_at_once(tmp_path, joined, capsys, text, code, said):
    "Without the orderly end that waits for the other processes, with its status, and with all that it said"
    (tmp_path/'program.py').write_text(text)
    with pytest.raises(RuntimeError, match=f'ended with {code}'): hosts.main([str(tmp_path/'program.py')])
    assert said in capsys.readouterr().err


def test_a_program_that_ends_well_ends_orderly(tmp_path, joined):
    (tmp_path/'program.py').write_text('import sys; sys.exit()')
    with pytest.raises(SystemExit) as e: hosts.main([str(tmp_path/'program.py')])
    assert not e.value.code


def test_what_a_program_printed_is_not_lost(tmp_path):
    "Through a pipe, where Python keeps it until the end"
    (tmp_path/'program.py').write_text('print("so far"); raise ValueError')
    start = 'from neural_tangents_nb import hosts; hosts.join = lambda *args: None; import sys; hosts.main(sys.argv[1:])'
    done = subprocess.run([sys.executable, '-c', start, str(tmp_path/'program.py')], capture_output=True, text=True,
                          env={n: v for n, v in os.environ.items() if n != 'PYTHONUNBUFFERED'} | dict(PYTHONPATH=os.pathsep.join(sys.path)))
    assert done.returncode == 1 and done.stdout == 'so far\n' and 'ValueError' in done.stderr


def test_joining(monkeypatch):
    "Devices are set before JAX starts; what is half given or out of range is refused"
    done = []
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *args: done.append(args))
    monkeypatch.setattr(jax.config, 'update', lambda *args: done.append(args))
    hosts.join('host:1', 3, 0, 2)
    hosts.join()
    assert done == [('jax_num_cpu_devices', 2), ('host:1', 3, 0), (None, None, None)]
    for wrong, said in ((('host:1',), 'go together'), ((None, 2, 0), 'go together'), (('host:1', 2, 2), 'from 0 to 1, got 2'), (('host:1', 2, -1), 'got -1')):
        with pytest.raises(ValueError, match=said): hosts.join(*wrong)
    assert len(done) == 3
