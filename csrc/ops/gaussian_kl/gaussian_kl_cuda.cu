#include "ops/gaussian_kl/gaussian_kl_cuda.cuh"

namespace cvf::gaussian_kl::cuda {

template int64_t scratch(const Arguments<float>&);
template int64_t scratch(const Arguments<double>&);
template void run(const Arguments<float>&, float*, const Place&);
template void run(const Arguments<double>&, double*, const Place&);

}  // namespace cvf::gaussian_kl::cuda
