"""How far does it go: figures of kernels too large for memory, each from a process of its own.

    python -m benchmarks.scale [CASE ...]       (default: all; some minutes each)

What was measured goes to `benchmarks/scale.json`, which notebook 19a_scale reads.
"""
import argparse, json, os, random, resource, shutil, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE/'scale.json'


def digits(n, seed=0):
    "The 1,797 digits of scikit-learn, enlarged to `n` by shifts of a pixel and noise; 10 targets"
    import numpy as np
    from sklearn.datasets import load_digits
    data, rng = load_digits(), np.random.RandomState(seed)
    pick = rng.randint(len(data.data), size=n)
    images = np.pad(data.images, ((0, 0), (1, 1), (1, 1)))[pick]
    dy, dx = rng.randint(3, size=(2, n))
    rows = np.arange(8)
    at = (dy[:, None] + rows)[:, :, None], (dx[:, None] + rows)[:, None, :]
    x = images[np.arange(n)[:, None, None], *at]
    x = (x.reshape(n, 64)/16 + .1*rng.randn(n, 64)).astype('f4')
    return x, (np.eye(10)[data.target[pick]] - .1).astype('f4'), data.target[pick]


def network():
    from neural_tangents_nb import stax
    layer = lambda: (stax.Dense(512, 1.5, .1), stax.Relu())
    return stax.serial(*layer(), *layer(), stax.Dense(1, 1.5, .1))


def small_cnn():
    "A network with positions whose kernel takes seconds, not hours"
    from neural_tangents_nb import stax
    conv = lambda: (stax.Conv(64, (3, 3), padding='SAME'), stax.Relu())
    pool = lambda: stax.AvgPool((2, 2), (2, 2))
    return stax.serial(*conv(), *conv(), pool(), *conv(), pool(), *conv(), pool(), stax.Flatten(),
                       stax.Dense(1))


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024


def cg(n=20_000, m=2_000, against_cholesky=False):
    "The mean at `m` points by conjugate gradients on a kernel of `n` points that is never formed"
    import jax, numpy as np
    import neural_tangents_nb as nt
    from neural_tangents_nb.solvers import CG
    x, y, label = digits(n + m)
    kernel_fn, solvers = network().kernel_fn, []
    def solver(k, noise):
        solvers.append(CG(k, noise, rtol=1e-5))
        return solvers[0]
    start = time.perf_counter()
    ensemble = nt.predict.gradient_descent_mse_ensemble
    predict = ensemble(kernel_fn, x[:n], y[:n], diag_reg=1e-3, solver=solver)
    mean = jax.block_until_ready(predict(x_test=x[n:], get='ntk'))
    seconds, memory, report = time.perf_counter() - start, peak(), solvers[0].report
    out = dict(n=n, m=m, seconds=seconds, peak_bytes=memory, products=report.products,
               residual=report.residual, rank=report.rank,
               accuracy=float((mean.argmax(1) == label[n:]).mean()))
    if not against_cholesky: return out
    start = time.perf_counter()
    exact = ensemble(kernel_fn, x[:n], y[:n], diag_reg=1e-3, solver='cholesky')
    exact = exact(x_test=x[n:], get='ntk')
    return out | dict(difference=float(np.abs(mean - exact).max()/np.abs(exact).max()),
                      cholesky_seconds=time.perf_counter() - start)


def cg_cholesky(): return cg(5_000, 2_000, True)


def folder(): return tempfile.TemporaryDirectory(dir=os.environ.get('SCALE_DIR'))


def timed(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def memory(n=20_000, tile=1024):
    "The kernel of `n` points into host memory, by tiles"
    import neural_tangents_nb as nt
    x = digits(n)[0]
    f = nt.batch(network().kernel_fn, tile, device_count=0, store_on_device=False)
    f(x[:2*tile], None, 'ntk')
    return dict(n=n, seconds=timed(lambda: f(x, None, 'ntk')), peak_bytes=peak())


def disk(n=20_000, tile=1024):
    "The same to disk, and one product with ten vectors from there"
    import neural_tangents_nb as nt
    x, y, _ = digits(n)
    with folder() as d:
        nt.store(f'{d}/warm', network().kernel_fn, x[:2*tile], tile=tile)
        seconds = timed(lambda: nt.store(f'{d}/k', network().kernel_fn, x, tile=tile))
        out, k = dict(n=n, seconds=seconds, peak_bytes=peak()), nt.open_store(f'{d}/k')
        size = sum(f.stat().st_size for f in Path(d, 'k').rglob('*') if f.is_file())
        k.matmul(y)
        return out | dict(disk_bytes=size, product_seconds=timed(lambda: k.matmul(y)))


def kept(n=20_000, tile=1024, times=5):
    "The same tiles, those on and above the diagonal, kept in memory and written to disk, in turns"
    import numpy as np
    import neural_tangents_nb as nt
    x, f = digits(n)[0], network().kernel_fn
    def in_memory(n):
        part = lambda i, j: f(x[i:min(i+tile, n)], None if i == j else x[j:min(j+tile, n)], 'ntk')
        at = range(0, n, tile)
        return {(i, j): np.asarray(part(i, j)) for i in at for j in at if i <= j}
    with folder() as d:
        in_memory(2*tile + n % tile); nt.store(f'{d}/warm', f, x[:2*tile], tile=tile)
        def once():
            memory = timed(lambda: in_memory(n))
            disk = timed(lambda: nt.store(f'{d}/k', f, x, tile=tile))
            shutil.rmtree(f'{d}/k') # or the next run would wait until all of this one is on the disk
            return memory, disk
        runs = [once() for _ in range(times)]
    memory, disk = (float(np.median(s)) for s in zip(*runs))
    return dict(n=n, memory_seconds=memory, disk_seconds=disk, ratio=memory/disk,
                ratios=sorted(m/s for m, s in runs))


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
        for f in sorted(p for p in Path(path).rglob('c/*/*') if p.is_file()):
            h.update(f.relative_to(path).as_posix().encode() + f.read_bytes())
        return h.hexdigest()
    with folder() as d:
        code = 'from benchmarks.scale import counted; counted({!r}, {!r}, {}, {})'.format
        run = lambda name, log: subprocess.Popen(
            [sys.executable, '-c', code(f'{d}/{name}', log, n, tile)])
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
        return dict(n=n, tiles=tiles, kills=times, computed=lines(log), again=lines(log) - tiles,
                    bit_identical=checksum(f'{d}/whole') == checksum(f'{d}/killed'))


def workloads(n, tile, count):
    "Three kernels: one in memory, one never formed times ten vectors, one that costs more"
    import jax, numpy as np
    import neural_tangents_nb as nt
    x, y, _ = digits(n)
    images = np.random.RandomState(0).randn(64, 16, 16, 3).astype('f4')
    where = -1 if count > 1 else 0
    dense = nt.batch(network().kernel_fn, tile, where)
    costly = nt.batch(small_cnn().kernel_fn, 8, where)
    product = nt.Tiled(network().kernel_fn, x, None, 'ntk', tile, where)
    return dict(FCN=lambda: dense(x, None, 'ntk'), product=lambda: product.matmul(y),
                CNN=lambda: costly(images, None, 'ntk'))


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
        env = os.environ | dict(PORT=str(free_port()))
        start = lambda rank: subprocess.Popen([sys.executable, '-c', code % rank],
                                              stdout=subprocess.PIPE, text=True, env=env)
        ps = [start(rank) for rank in range(count)]
        found = [json.loads(p.communicate()[0].splitlines()[-1]) for p in ps]
        return {k: max(f[k] for f in found) for k in found[0]}
    least = lambda runs: {k: min(r[k] for r in runs) for k in runs[0]}
    # In turns, as other work may run beside.
    one, two = map(least, zip(*[(seconds(1), seconds(2)) for _ in range(2)]))
    return dict(n=n, one=one, two=two, speedup={k: one[k]/two[k] for k in one})


def one_of_hosts(rank, count, n, tile):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    import jax
    if count > 1: jax.distributed.initialize(f'127.0.0.1:{os.environ["PORT"]}', count, rank)
    print(json.dumps({name: best(f) for name, f in workloads(n, tile, count).items()}))


def devices(n=8_192, tile=512):
    "One device against eight simulated ones, on the same cores"
    def seconds(count):
        code = f'from benchmarks.scale import on_devices; on_devices({n}, {tile}, {count})'
        done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True,
                              check=True)
        return json.loads(done.stdout.splitlines()[-1])
    one, eight = seconds(1), seconds(8)
    return dict(n=n, one=one, eight=eight, efficiency={k: one[k]/eight[k] for k in one})


def on_devices(n, tile, count):
    import jax
    jax.config.update('jax_num_cpu_devices', count)
    print(json.dumps({k: best(f) for k, f in workloads(n, tile, count).items()}))


def rates():
    "Seconds for an entry of kernels of images as large as CIFAR's, measured and by the cost model"
    import jax, numpy as np
    from neural_tangents_nb import stax
    from neural_tangents_nb.tiles import tiling
    from .cases import myrtle, wide_resnet
    out, image = {}, (32, 32, 3)
    kinds = (('FCN', network(), (3072,), 1000), ('Myrtle-10', myrtle(stax, 10), image, 2),
             ('WideResNet-28', wide_resnet(stax, 4), image, 2))
    for name, net, shape, count in kinds:
        x = np.random.RandomState(0).randn(2*count, *shape).astype('f4')
        t = tiling(net.kernel_fn, x[:count], x[count:], ('ntk',), {}, 0)
        tile = lambda: jax.block_until_ready(t.tile(0, 0, count, count))
        tile()
        out[name] = dict(input=shape, seconds_per_entry=min(timed(tile) for _ in range(3))/count**2,
                         predicted=net.cost((1, *shape), count, count).per_entry)
    return out


CASES = dict(cg=cg, cg_cholesky=cg_cholesky, memory=memory, disk=disk, kept=kept, kills=kills,
             hosts=hosts, devices=devices, rates=rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('cases', nargs='*', choices=[[], *CASES], help='default: all')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here: print(json.dumps(CASES[args.cases[0]]())); return
    for name in args.cases or CASES:
        done = subprocess.run([sys.executable, '-m', 'benchmarks.scale', '--here', name],
                              stdout=subprocess.PIPE, text=True, check=True)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        load = os.getloadavg()[0] # of the machine, this measurement included
        results[name] = json.loads(done.stdout.splitlines()[-1]) | dict(load=load)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + '\n')
        print(name, json.dumps(results[name]), flush=True)


if __name__ == '__main__': main()
