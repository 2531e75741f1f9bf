#include "ops/pivot_kl/pivot_kl.h"

#include "ops/pivot_kl/kernels.h"

namespace cvf::pivot_kl {

template <class T>
void run(const Arguments<T>& args, int threads, Isa isa) {
#ifdef CVF_HAVE_X86_ISAS
  if (isa == Isa::kAvx512) return avx512::run(args, threads);
  if (isa == Isa::kAvx2) return avx2::run(args, threads);
#endif
  return baseline::run(args, threads);
}

template void run<float>(const Arguments<float>&, int, Isa);
template void run<double>(const Arguments<double>&, int, Isa);

}  // namespace cvf::pivot_kl
