#include "ops/propagate/propagate.h"

#include "ops/propagate/kernels.h"

namespace cvf::propagate {

template <class T>
void forward(const Forward<T>& args, int threads, Isa isa) {
  CVF_CALL_KERNEL(isa, forward, args, threads);
}

template <class T>
void backward(const Backward<T>& args, int threads, Isa isa) {
  CVF_CALL_KERNEL(isa, backward, args, threads);
}

template void forward<float>(const Forward<float>&, int, Isa);
template void forward<double>(const Forward<double>&, int, Isa);
template void backward<float>(const Backward<float>&, int, Isa);
template void backward<double>(const Backward<double>&, int, Isa);

}  // namespace cvf::propagate
