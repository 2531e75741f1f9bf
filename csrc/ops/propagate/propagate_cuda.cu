#include "ops/propagate/propagate_cuda.cuh"

namespace cvf::propagate::cuda {

template void forward(const Forward<float>&, const Place&);
template void forward(const Forward<double>&, const Place&);
template int64_t backward_scratch(const Backward<float>&);
template int64_t backward_scratch(const Backward<double>&);
template void backward(const Backward<float>&, float*, const Place&);
template void backward(const Backward<double>&, double*, const Place&);

}  // namespace cvf::propagate::cuda
