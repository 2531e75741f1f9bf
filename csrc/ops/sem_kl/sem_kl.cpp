#include "ops/sem_kl/sem_kl.h"

#include "common/weighted_total.h"
#include "ops/sem_kl/kernels.h"

namespace cvf::sem_kl {

template <class T>
void run(const Arguments<T>& arguments, int threads, Isa isa) {
  run_with_total(arguments, [&](const Arguments<T>& args) { CVF_CALL_KERNEL(isa, run, args, threads); });
}

template void run<float>(const Arguments<float>&, int, Isa);
template void run<double>(const Arguments<double>&, int, Isa);

}  // namespace cvf::sem_kl
