// The entries of each instruction set's kernels.
#pragma once

#include "common/kernel_entry.h"
#include "ops/ancestral_sample/ancestral_sample.h"

namespace cvf::ancestral_sample {

CVF_DECLARE_KERNEL(forward, Forward)
CVF_DECLARE_KERNEL(backward, Backward)

}  // namespace cvf::ancestral_sample
