package org.kbnn.demo

import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** Turns a picture into network input exactly as the training pipeline does. */
class Preprocessing(private val spec: InputSpec) {
    /** Network input, height x width x channels: cut, resized, normalized. */
    fun tensor(picture: Picture): FloatArray {
        val window = middle(picture)
        val tensor = FloatArray(spec.height * spec.width * spec.channels)
        for (channel in 0 until spec.channels) {
            val resized = channel(picture, window, channel).resized(spec.width, spec.height)
            for (y in 0 until spec.height) {
                for (x in 0 until spec.width) {
                    tensor[(y * spec.width + x) * spec.channels + channel] =
                        (resized[x, y] - spec.mean[channel]) / spec.std[channel]
                }
            }
        }
        return tensor
    }

    /** The central part that the network sees: it gets the input's size when the picture is resized as in training. */
    private fun middle(picture: Picture): Window {
        val shorter = min(picture.width, picture.height)
        val width = extent(if (spec.square) picture.width else shorter, spec.width)
        val height = extent(if (spec.square) picture.height else shorter, spec.height)
        return Window((picture.width - width) / 2, (picture.height - height) / 2, width, height)
    }

    private fun extent(side: Int, size: Int): Int =
        max(1, round((side.toFloat() * (size.toDouble() / spec.shorterSide).toFloat()).toDouble()).toInt())

    private fun channel(picture: Picture, window: Window, channel: Int): Channel =
        Channel.filled(window.width, window.height) { x, y ->
            val pixel = picture.pixels[(window.top + y) * picture.width + window.left + x]
            if (spec.channels == 1) luma(pixel) else level(pixel, channel)
        }

    private fun level(pixel: Int, channel: Int): Float = ((pixel shr (16 - 8 * channel)) and 0xFF).toFloat()

    /** BT.601's weights in thousandths, so that a grey pixel keeps its level exactly. */
    private fun luma(pixel: Int): Float =
        (299 * ((pixel shr 16) and 0xFF) + 587 * ((pixel shr 8) and 0xFF) + 114 * (pixel and 0xFF)) / 1000f
}
