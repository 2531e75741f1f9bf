// The entry of each instruction set's kernels.
#pragma once

#include "common/kernel_entry.h"
#include "ops/pivot_kl/pivot_kl.h"

namespace cvf::pivot_kl {

CVF_DECLARE_KERNEL(run, Arguments)

}  // namespace cvf::pivot_kl
