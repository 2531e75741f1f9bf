#include "ops/ancestral_sample/mlp.h"

namespace cvf::ancestral_sample::mlp {

template <class T>
void forward(const Forward<T>& args, int threads, Isa isa) {
#ifdef CVF_HAVE_X86_ISAS
  if (isa == Isa::kAvx512) return avx512::forward(args, threads);
  if (isa == Isa::kAvx2) return avx2::forward(args, threads);
#endif
  return baseline::forward(args, threads);
}

template <class T>
void backward(const Backward<T>& args, int threads, Isa isa) {
#ifdef CVF_HAVE_X86_ISAS
  if (isa == Isa::kAvx512) return avx512::backward(args, threads);
  if (isa == Isa::kAvx2) return avx2::backward(args, threads);
#endif
  return baseline::backward(args, threads);
}

template void forward<float>(const Forward<float>&, int, Isa);
template void forward<double>(const Forward<double>&, int, Isa);
template void backward<float>(const Backward<float>&, int, Isa);
template void backward<double>(const Backward<double>&, int, Isa);

}  // namespace cvf::ancestral_sample::mlp
