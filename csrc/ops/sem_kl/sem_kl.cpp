#include "ops/sem_kl/sem_kl.h"

#include <memory>

#include "ops/sem_kl/kernels.h"

namespace cvf::sem_kl {

template <class T>
void run(const Arguments<T>& arguments, int threads, Isa isa) {
  Arguments<T> args = arguments;
  std::unique_ptr<T[]> values;  // of which only the sum is wanted
  if (args.total != nullptr && args.value == nullptr) {
    values = std::make_unique_for_overwrite<T[]>(static_cast<size_t>(args.batch));
    args.value = values.get();
  }
  CVF_CALL_KERNEL(isa, run, args, threads);
  if (args.total == nullptr) return;
  double total = 0;
  for (int64_t b = 0; b < args.batch; ++b) total += static_cast<double>(*args.upstream[b] * args.value[b]);
  *args.total = static_cast<T>(total);
}

template void run<float>(const Arguments<float>&, int, Isa);
template void run<double>(const Arguments<double>&, int, Isa);

}  // namespace cvf::sem_kl
