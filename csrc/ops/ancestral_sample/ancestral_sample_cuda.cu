#include "ops/ancestral_sample/ancestral_sample_cuda.cuh"

namespace cvf::ancestral_sample::cuda {

template void forward(const Forward<float>&, const Place&);
template void forward(const Forward<double>&, const Place&);
template int64_t backward_scratch(const Backward<float>&);
template int64_t backward_scratch(const Backward<double>&);
template void backward(const Backward<float>&, float*, const Place&);
template void backward(const Backward<double>&, double*, const Place&);

}  // namespace cvf::ancestral_sample::cuda

namespace cvf::ancestral_sample::mlp::cuda {

template int64_t forward_scratch(const Forward<float>&);
template int64_t forward_scratch(const Forward<double>&);
template void forward(const Forward<float>&, float*, const Place&);
template void forward(const Forward<double>&, double*, const Place&);
template int64_t backward_scratch(const Backward<float>&);
template int64_t backward_scratch(const Backward<double>&);
template void backward(const Backward<float>&, float*, const Place&);
template void backward(const Backward<double>&, double*, const Place&);

}  // namespace cvf::ancestral_sample::mlp::cuda
