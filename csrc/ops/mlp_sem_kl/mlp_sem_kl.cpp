#include "ops/mlp_sem_kl/mlp_sem_kl.h"

namespace cvf::mlp_sem_kl {

template <class T>
void run(const Arguments<T>& args, int threads, Isa isa) {
  CVF_CALL_KERNEL(isa, run, args, threads);
  if (args.total == nullptr) return;
  double total = 0;
  for (int64_t b = 0; b < args.batch; ++b) total += static_cast<double>(*args.upstream[b] * args.value[b]);
  *args.total = static_cast<T>(total);
}

template void run<float>(const Arguments<float>&, int, Isa);
template void run<double>(const Arguments<double>&, int, Isa);

}  // namespace cvf::mlp_sem_kl
