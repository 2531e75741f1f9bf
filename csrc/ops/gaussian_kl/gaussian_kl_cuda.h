// The kernel of gaussian_kl for CUDA devices. Addresses are those of the device; scratch has as many elements as the
// function of that name says, and no value.
#pragma once

#include "common/cuda/place.h"
#include "ops/gaussian_kl/gaussian_kl.h"

namespace cvf::gaussian_kl::cuda {

using cvf::cuda::Place;

template <class T>
int64_t scratch(const Arguments<T>& arguments);
template <class T>
void run(const Arguments<T>& arguments, T* scratch, const Place& place);

}  // namespace cvf::gaussian_kl::cuda
