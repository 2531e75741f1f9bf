#include "ops/gaussian_kl/gaussian_kl.h"

#include "ops/gaussian_kl/kernels.h"

namespace cvf::gaussian_kl {

template <class T>
void run(const Arguments<T>& args, int threads, Isa isa) {
  CVF_CALL_KERNEL(isa, run, args, threads);
}

template void run<float>(const Arguments<float>&, int, Isa);
template void run<double>(const Arguments<double>&, int, Isa);

}  // namespace cvf::gaussian_kl
