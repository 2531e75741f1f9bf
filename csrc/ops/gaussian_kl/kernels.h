// The entry of each instruction set's kernels.
#pragma once

#include "common/kernel_entry.h"
#include "ops/gaussian_kl/gaussian_kl.h"

namespace cvf::gaussian_kl {

CVF_DECLARE_KERNEL(run, Arguments)

}  // namespace cvf::gaussian_kl
