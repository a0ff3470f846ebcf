"Tests run in double precision; the library itself never chooses"
import jax

jax.config.update('jax_enable_x64', True)
