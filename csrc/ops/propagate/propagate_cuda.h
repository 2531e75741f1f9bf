// The kernels of propagate for CUDA devices. Addresses are those of the device; scratch has as many elements as the
// function of that name says, and no value.
#pragma once

#include "common/cuda/place.h"
#include "ops/propagate/propagate.h"

namespace cvf::propagate::cuda {

using cvf::cuda::Place;

template <class T>
void forward(const Forward<T>& arguments, const Place& place);

template <class T>
int64_t backward_scratch(const Backward<T>& arguments);
template <class T>
void backward(const Backward<T>& arguments, T* scratch, const Place& place);

}  // namespace cvf::propagate::cuda
