#include "ops/sem_kl/sem_kl.h"

#include "ops/sem_kl/kernels.h"

namespace cvf::sem_kl {

namespace {

template <class T>
void run_kernels(const Arguments<T>& args, int threads, Isa isa) {
#ifdef CVF_HAVE_X86_ISAS
  if (isa == Isa::kAvx512) return avx512::run(args, threads);
  if (isa == Isa::kAvx2) return avx2::run(args, threads);
#endif
  return baseline::run(args, threads);
}

}  // namespace

template <class T>
void run(const Arguments<T>& args, int threads, Isa isa) {
  run_kernels(args, threads, isa);
  if (args.total == nullptr) return;
  double total = 0;
  for (int64_t b = 0; b < args.batch; ++b) total += static_cast<double>(*args.upstream[b] * args.value[b]);
  *args.total = static_cast<T>(total);
}

template void run<float>(const Arguments<float>&, int, Isa);
template void run<double>(const Arguments<double>&, int, Isa);

}  // namespace cvf::sem_kl
