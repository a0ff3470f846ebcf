"""How far does it go: figures of kernels too large for memory, each measured in a process of its own.

    python -m benchmarks.scale [CASE ...]       (default: all; minutes each)

What was measured goes to `benchmarks/scale.json`, which notebook 19a_scale reads.
"""
import argparse, json, os, random, resource, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE/'scale.json'


def digits(n, seed=0):
    "The 1,797 digits of scikit-learn, enlarged to `n` by shifts of up to a pixel and noise; and 10 targets"
    import numpy as np
    from sklearn.datasets import load_digits
    data, rng = load_digits(), np.random.RandomState(seed)
    pick = rng.randint(len(data.data), size=n)
    images = np.pad(data.images, ((0, 0), (1, 1), (1, 1)))[pick]
    dy, dx = rng.randint(3, size=(2, n))
    rows = np.arange(8)
    x = images[np.arange(n)[:, None, None], (dy[:, None] + rows)[:, :, None], (dx[:, None] + rows)[:, None, :]]
    x = (x.reshape(n, 64)/16 + .1*rng.randn(n, 64)).astype('f4')
    return x, (np.eye(10)[data.target[pick]] - .1).astype('f4'), data.target[pick]


def network():
    from neural_tangents_nb import stax
    layer = lambda: (stax.Dense(512, 1.5, .1), stax.Relu())
    return stax.serial(*layer(), *layer(), stax.Dense(1, 1.5, .1))


def myrtle():
    from neural_tangents_nb import stax
    conv, pool = lambda: (stax.Conv(64, (3, 3), padding='SAME'), stax.Relu()), lambda: stax.AvgPool((2, 2), (2, 2))
    return stax.serial(*conv(), *conv(), pool(), *conv(), pool(), *conv(), pool(), stax.Flatten(), stax.Dense(1))


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024


def cg(n=20_000, m=2_000, against_cholesky=False):
    "The posterior mean at `m` test points by conjugate gradients on a kernel of `n` points that is never formed"
    import jax, numpy as np
    import neural_tangents_nb as nt
    from neural_tangents_nb.solvers import CG
    x, y, label = digits(n + m)
    kernel_fn, solvers = network().kernel_fn, []
    def solver(k, noise):
        solvers.append(CG(k, noise, rtol=1e-5))
        return solvers[0]
    start = time.perf_counter()
    predict = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x[:n], y[:n], diag_reg=1e-3, solver=solver)
    mean = jax.block_until_ready(predict(x_test=x[n:], get='ntk'))
    seconds, memory, report = time.perf_counter() - start, peak(), solvers[0].report
    out = dict(n=n, m=m, seconds=seconds, peak_bytes=memory, products=report.products, residual=report.residual, rank=report.rank,
               accuracy=float((mean.argmax(1) == label[n:]).mean()))
    if against_cholesky:
        start = time.perf_counter()
        exact = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x[:n], y[:n], diag_reg=1e-3, solver='cholesky')(x_test=x[n:], get='ntk')
        out |= dict(difference=float(np.abs(mean - exact).max()/np.abs(exact).max()), cholesky_seconds=time.perf_counter() - start)
    return out


def cg_cholesky(): return cg(5_000, 2_000, True)


def memory(n=20_000, tile=1024):
    "The kernel of `n` points into host memory, by tiles"
    import neural_tangents_nb as nt
    x = digits(n)[0]
    f = nt.batch(network().kernel_fn, tile, device_count=0, store_on_device=False)
    f(x[:2*tile], None, 'ntk')
    start = time.perf_counter()
    f(x, None, 'ntk')
    return dict(n=n, seconds=time.perf_counter() - start, peak_bytes=peak())


def disk(n=20_000, tile=1024):
    "The same to disk"
    import neural_tangents_nb as nt
    x = digits(n)[0]
    with tempfile.TemporaryDirectory(dir=os.environ.get('SCALE_DIR')) as d:
        nt.store(f'{d}/warm', network().kernel_fn, x[:2*tile], tile=tile)
        start = time.perf_counter()
        nt.store(f'{d}/k', network().kernel_fn, x, tile=tile)
        seconds = time.perf_counter() - start
        size = sum(f.stat().st_size for f in Path(d, 'k').rglob('*') if f.is_file())
    return dict(n=n, seconds=seconds, peak_bytes=peak(), disk_bytes=size)


def counted(path, log, n, tile):
    "Store the kernel and note every tile that is begun"
    import neural_tangents_nb as nt
    from neural_tangents_nb.store import Job
    compute = Job.compute
    def noted(self, key):
        with open(log, 'a') as f: f.write(f'{key}\n')
        return compute(self, key)
    Job.compute = noted
    nt.store(path, network().kernel_fn, digits(n)[0], tile=tile)


def kills(n=20_000, tile=1024, times=5):
    "The same, killed by SIGKILL at random times: tiles computed again, and whether any bit differs"
    import hashlib
    def checksum(path):
        h = hashlib.sha256()
        for f in sorted(p for p in Path(path).rglob('c/*/*') if p.is_file()): h.update(f.relative_to(path).as_posix().encode() + f.read_bytes())
        return h.hexdigest()
    with tempfile.TemporaryDirectory(dir=os.environ.get('SCALE_DIR')) as d:
        run = lambda name, log: subprocess.Popen([sys.executable, '-c', f'from benchmarks.scale import counted; counted({f"{d}/{name}"!r}, {log!r}, {n}, {tile})'])
        lines = lambda log: len(Path(log).read_text().splitlines()) if Path(log).exists() else 0
        whole = f'{d}/whole.log'
        assert run('whole', whole).wait() == 0
        tiles, log = lines(whole), f'{d}/killed.log'
        for _ in range(times):
            p, before = run('killed', log), lines(log)
            while lines(log) == before and p.poll() is None: time.sleep(.05)
            time.sleep(random.uniform(0, 3))
            p.kill(); p.wait()
        assert run('killed', log).wait() == 0
        return dict(n=n, tiles=tiles, kills=times, computed=lines(log), again=lines(log) - tiles, bit_identical=checksum(f'{d}/whole') == checksum(f'{d}/killed'))


def workloads(n, tile, count):
    "Three kernels over devices: one in memory, one never formed times ten vectors, and one that costs more to compute"
    import jax, numpy as np
    import neural_tangents_nb as nt
    x, y, _ = digits(n)
    images = np.random.RandomState(0).randn(64, 16, 16, 3).astype('f4')
    where = -1 if count > 1 else 0
    dense, costly = nt.batch(network().kernel_fn, tile, where), nt.batch(myrtle().kernel_fn, 8, where)
    product = nt.Tiled(network().kernel_fn, x, None, 'ntk', tile, where)
    return dict(FCN=lambda: dense(x, None, 'ntk'), product=lambda: product.matmul(y), Myrtle=lambda: costly(images, None, 'ntk'))


def best(f, times=3):
    "The least seconds of some calls, after a first one"
    import jax
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        jax.block_until_ready(f())
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def hosts(n=8_192, tile=512):
    "One and two processes with one core each, of the same kernels"
    from neural_tangents_nb.hosts import free_port
    def seconds(count):
        code = f'from benchmarks.scale import one_of_hosts; one_of_hosts(%d, {count}, {n}, {tile})'
        port = free_port()
        ps = [subprocess.Popen([sys.executable, '-c', code % r], stdout=subprocess.PIPE, text=True, env=os.environ | dict(PORT=str(port))) for r in range(count)]
        found = [json.loads(p.communicate()[0].splitlines()[-1]) for p in ps]
        return {k: max(f[k] for f in found) for k in found[0]}
    least = lambda runs: {k: min(r[k] for r in runs) for k in runs[0]}
    one, two = map(least, zip(*[(seconds(1), seconds(2)) for _ in range(3)])) # in turns, as other work may run beside
    return dict(n=n, one=one, two=two, speedup={k: one[k]/two[k] for k in one})


def one_of_hosts(rank, count, n, tile):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    import jax
    if count > 1: jax.distributed.initialize(f'127.0.0.1:{os.environ["PORT"]}', count, rank)
    print(json.dumps({name: best(f) for name, f in workloads(n, tile, count).items()}))


def devices(n=8_192, tile=512):
    "One device against eight simulated ones, on the same cores"
    def seconds(count):
        code = f'import jax, json; jax.config.update("jax_num_cpu_devices", {count})\n' \
               f'from benchmarks.scale import best, workloads; print(json.dumps({{k: best(f) for k, f in workloads({n}, {tile}, {count}).items()}}))'
        return json.loads(subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    one, eight = seconds(1), seconds(8)
    return dict(n=n, one=one, eight=eight, efficiency={k: one[k]/eight[k] for k in one})


def rates():
    "Seconds and bytes for an entry of three kernels, at the size of a tile that 'auto' finds"
    import jax, numpy as np
    from neural_tangents_nb import stax
    from neural_tangents_nb.tiles import tiling
    conv, pool = lambda: stax.Conv(64, (3, 3), padding='SAME'), lambda: (stax.AvgPool((2, 2), (2, 2)),)
    def block(): return stax.serial(stax.FanOut(2), stax.parallel(stax.serial(stax.Relu(), conv(), stax.Relu(), conv()), stax.Identity()), stax.FanInSum())
    wide = stax.serial(conv(), block(), *pool(), block(), *pool(), block(), stax.GlobalAvgPool(), stax.Dense(1))
    out = {}
    for name, net, shape, count in (('FCN', network(), (64,), 512), ('Myrtle', myrtle(), (16, 16, 3), 4), ('WideResNet', wide, (16, 16, 3), 4)):
        x = np.random.RandomState(0).randn(2*count, *shape).astype('f4')
        t = tiling(net.kernel_fn, x[:count], x[count:], ('ntk',), {}, 0)
        jax.block_until_ready(t.tile(0, 0, count, count))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(t.tile(0, 0, count, count))
            times.append(time.perf_counter() - start)
        out[name] = dict(input=shape, seconds_per_entry=min(times)/count**2, bytes_per_entry=t.bytes_per_entry(4))
    return out


CASES = dict(cg=cg, cg_cholesky=cg_cholesky, memory=memory, disk=disk, kills=kills, hosts=hosts, devices=devices, rates=rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('cases', nargs='*', choices=[[], *CASES], help='default: all')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here: print(json.dumps(CASES[args.cases[0]]())); return
    for name in args.cases or CASES:
        done = subprocess.run([sys.executable, '-m', 'benchmarks.scale', '--here', name], stdout=subprocess.PIPE, text=True, check=True)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[name] = json.loads(done.stdout.splitlines()[-1]) | dict(load=os.getloadavg()[0])
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + '\n')
        print(name, json.dumps(results[name]), flush=True)


if __name__ == '__main__': main()
