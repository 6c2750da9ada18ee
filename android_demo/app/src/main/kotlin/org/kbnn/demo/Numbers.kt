package org.kbnn.demo

import kotlin.math.exp
import kotlin.math.roundToInt

/** A label and how sure the network is of it, 0..1. */
data class Guess(val label: String, val confidence: Float)

/** exp(x_i) / sum exp(x), computed from x - max so that nothing overflows. */
fun softmax(logits: FloatArray): FloatArray {
    val largest = logits.max()
    val powers = DoubleArray(logits.size) { exp((logits[it] - largest).toDouble()) }
    val sum = powers.sum()
    return FloatArray(logits.size) { (powers[it] / sum).toFloat() }
}

/**
 * The [count] likeliest labels, likeliest first; equally likely ones keep their order.
 *
 * Outputs that are probabilities stay as they are, of others the softmax is taken.
 */
fun top(outputs: FloatArray, areProbabilities: Boolean, labels: List<String>, count: Int): List<Guess> {
    require(outputs.size == labels.size) { "${outputs.size} outputs for ${labels.size} labels: export again" }
    val confidences = if (areProbabilities) outputs else softmax(outputs)
    return confidences.indices.sortedByDescending { confidences[it] }.take(count)
        .map { Guess(labels[it], confidences[it]) }
}

/** int8 values q stand for real ones: real = scale * (q - zeroPoint). */
data class Quantization(val scale: Float, val zeroPoint: Int) {
    fun quantize(value: Float): Byte = ((value / scale).roundToInt() + zeroPoint).coerceIn(-128, 127).toByte()

    fun real(value: Byte): Float = scale * (value - zeroPoint)
}

/** The last [size] latencies. */
class LatencyWindow(private val size: Int = 100) {
    private val values = ArrayDeque<Double>()

    val count: Int get() = values.size
    val median: Double get() = percentile(0.5)
    val p95: Double get() = percentile(0.95)

    fun add(milliseconds: Double) {
        if (values.size == size) values.removeFirst()
        values.addLast(milliseconds)
    }

    fun clear() = values.clear()

    /** Interpolated linearly between the two nearest ranks, as in NumPy; NaN if there are no latencies. */
    private fun percentile(part: Double): Double {
        if (values.isEmpty()) return Double.NaN
        val sorted = values.sorted()
        val rank = part * (sorted.size - 1)
        val below = rank.toInt()
        val above = minOf(below + 1, sorted.size - 1)
        return sorted[below] + (rank - below) * (sorted[above] - sorted[below])
    }
}
