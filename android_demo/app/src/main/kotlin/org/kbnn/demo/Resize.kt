package org.kbnn.demo

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/**
 * One output coordinate of a resize: the sum of the inputs from [first] on, times [weights].
 *
 * The weights are a triangle of half-width max(scale, 1) around the output pixel's centre, scale = input size / output
 * size: bilinear interpolation that avoids aliasing when it shrinks, as in `tf.image.resize(..., antialias=True)`.
 */
private class Span(val first: Int, val weights: FloatArray)

/** The spans of all output coordinates. */
private fun spans(inputSize: Int, outputSize: Int): List<Span> {
    val scale = inputSize.toDouble() / outputSize
    val radius = max(scale, 1.0)
    return List(outputSize) { k ->
        val middle = (k + 0.5) * scale
        val first = max(0, ceil(middle - radius - 0.5).toInt())
        val last = min(inputSize - 1, floor(middle + radius - 0.5).toInt())
        val weights = DoubleArray(last - first + 1) { max(0.0, 1 - abs(first + it + 0.5 - middle) / radius) }
        val sum = weights.sum()
        Span(first, FloatArray(weights.size) { (weights[it] / sum).toFloat() })
    }
}

/** A part of a picture. */
data class Window(val left: Int, val top: Int, val width: Int, val height: Int)

/** One channel of a picture, row by row. */
class Channel(val width: Int, val height: Int, val values: FloatArray) {
    operator fun get(x: Int, y: Int): Float = values[y * width + x]

    /** This channel resized to [newWidth] x [newHeight]; unchanged if it has that size. */
    fun resized(newWidth: Int, newHeight: Int): Channel {
        if (newWidth == width && newHeight == height) return this
        val columns = spans(width, newWidth)
        val rows = spans(height, newHeight)
        val narrow = filled(newWidth, height) { x, y ->
            val span = columns[x]
            var sum = 0f
            for (k in span.weights.indices) sum += span.weights[k] * this[span.first + k, y]
            sum
        }
        return filled(newWidth, newHeight) { x, y ->
            val span = rows[y]
            var sum = 0f
            for (k in span.weights.indices) sum += span.weights[k] * narrow[x, span.first + k]
            sum
        }
    }

    companion object {
        inline fun filled(width: Int, height: Int, value: (Int, Int) -> Float): Channel {
            val values = FloatArray(width * height)
            for (y in 0 until height) for (x in 0 until width) values[y * width + x] = value(x, y)
            return Channel(width, height, values)
        }
    }
}
