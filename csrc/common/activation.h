// Activations of hidden units.
#pragma once

namespace cvf {

enum class Activation { kTanh, kSilu, kSoftplus, kLeakyRelu };  // the slope of the last one is 0.01 below 0

}  // namespace cvf
